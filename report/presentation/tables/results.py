"""Tables of steps, claims, needed seeds, backends and classes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter, itemgetter

import pandas as pd

from report import analysis
from report.analysis import Content, Judgement, Run, Step
from report.presentation.tables import numbers
from report.presentation.tables.numbers import NONE, percent, points, span
from report.presentation.tables.table import LONG, SHORT, Field, Table, plain_table, raw
from resnet.study import short


def published_heading(content: Content) -> str:
    """Returns the heading of published values, with † if the runs are not comparable with them."""
    marked = f" ({content.study.dataset_title}) †" * bool(content.run_set.reservation)
    return f"published{marked}"


def as_list(text: str) -> str:
    """Writes ``a; b`` as two lines, and an empty text as a dash."""
    return text.replace("; ", "\n") or NONE


def _measured(j: Judgement) -> list[str]:
    """Writes the measured value and its interval; for the unit epoch, all values and a dash."""
    if j.unit != "epoch" or not j.values:
        return numbers.to_limits(j.value, j.interval, j.claim.bound, j.unit)
    each = dict.fromkeys(numbers.measured(value, j.unit) for value in sorted(j.values))
    return [", ".join(each), NONE]


def _basis(j: Judgement) -> str:
    meaning = analysis.QUANTITIES[j.claim.quantity].meaning
    named = meaning.replace("the row named by 'against'", numbers.rung(j.claim.against or ""))
    return f"{j.evidence}. Measured: {named}."


def starred(verdict: str) -> str:
    """Shortens "(under our assumptions)" to a star, which a note in the terminal explains."""
    return verdict.replace(" (under our assumptions)", " *")


def _signs(text: str) -> str:
    return text.replace("at least", "≥").replace("at most", "≤")


def judged(content: Content) -> Table:
    """Lists the claims with verdict, measured value, bound and evidence."""

    def claim_text(j: Judgement) -> str:
        where = f" · section {j.claim.where}" if j.claim.where else ""
        return f"{j.claim.text}\n{j.claim.id} · {numbers.rung(j.claim.rung)}{where}"

    def limits(j: Judgement) -> str:
        return numbers.bound(j.claim.bound, j.unit)

    fields = [
        Field("", claim_text, "claim", on=LONG),
        Field("claim", "claim.id", "claim", on="terminal"),
        Field("rung", "claim.rung", "rung", short, on="terminal"),
        Field("verdict", "", "verdict", str, "verdict", LONG),
        Field("", "verdict", "verdict", starred, "verdict", "terminal"),
        Field("", lambda j: _measured(j)[0], "measured", str, "number", SHORT),
        Field("", lambda j: _measured(j)[1], "95 % interval", str, "lines", LONG),
        Field("", limits, "holds if", str, "lines", LONG),
        Field("", limits, "holds if", _signs, "lines", "terminal"),
        Field("", _basis, "evidence", on="results"),
        Field("", _basis, "evidence", on="page", kind="below"),
        *raw(run_ids=lambda j: " ".join(r.id for r in j.runs)),
        *raw("value", "interval", "evidence", min="claim.bound.min", max="claim.bound.max"),
        *raw(against="claim.against", text="claim.text", quantity="claim.quantity"),
        *raw(where="claim.where"),
    ]
    anchor = attrgetter("claim.id")
    return Table("claims", "Verdicts on the claims", fields, content.claims, anchor)


def comparison(name: str, caption: str, content: Content) -> Table:
    """Makes the table of ``content.steps`` (if ``name`` is "steps") or of ``content.rivals``."""
    steps = getattr(content, name)
    heading = published_heading(content).replace("published", "published gain")
    form = numbers.gains_form(s.after for s in steps)
    fields = [
        Field("", "title", "step", on=LONG),
        *raw(**{"from": "before.name", "to": "after.name"}),
        Field("published_gain", "published", heading, form, "number", LONG),
        *paired_fields("gain", steps, name == "steps"),
    ]
    return Table(name, caption, fields, steps)


def paired_fields(gain: str, steps: Sequence[Step], together: bool = True) -> list[Field]:
    """Returns the columns of a comparison; ``together`` adds Holm's corrected p values."""
    corrected = analysis.holm(steps) if together else {}
    count, form = numbers.number(",.4g"), numbers.gains_form(s.after for s in steps)
    return [
        Field(gain, "gain", gain, form, "number", SHORT),
        Field("interval", "", "95 % interval", lambda i: span(i, form), "number", SHORT),
        Field("pairs", lambda s: len(s.gains)),
        Field("p", "", "p", numbers.p_value, "number"),
        Field("p_holm", lambda s: corrected.get(s.after.name, math.nan),
              "p (Holm)" * together, numbers.p_value, "number"),
        Field("mcnemar_p", "", "McNemar p", numbers.p_value, "number"),
        Field("agreement", "", "agreement", percent, "number"),
        Field("newly_right", "", "newly right", count, "number"),
        Field("newly_wrong", "", "newly wrong", count, "number"),
        Field("evidence", "basis", "evidence", on=LONG),
    ]  # fmt: skip


def seeds(content: Content) -> Table:
    """Lists how many seeds per row each accuracy or claim needs for a verdict."""

    def half(value: float) -> str:
        return points(value).lstrip("+") if value > 0 else NONE

    places = "page terminal"
    fields = [
        Field("claim", "name", "accuracy or claim", on=places),
        Field("half_width", "half", "largest half-width", half, "number", places),
        Field("seeds_needed", "seeds", "seeds needed", numbers.number("d"), "number", places),
        Field("evidence", "basis", "estimated from", on="page"),
    ]
    caption = "Seeds per row needed for a verdict, if the published value is true"
    return Table("seeds", caption, fields, analysis.prospects(content) if content.runs else [])


def backends(content: Content) -> Table:
    """Compares a row's runs on each backend and device with the row's other runs."""
    found = []
    for s in content.systems:
        names = dict.fromkeys(map(engine, s.runs))
        for name in names if len(names) > 1 else ():
            mine, others = (
                replace(s, title=name, runs=tuple(r for r in s.runs if (engine(r) == name) is own))
                for own in (True, False)
            )
            found.append(analysis.compare(others, mine))

    def expected(s: Step) -> str:
        low, high = s.interval
        return "above" if low > 0 else "below" if high < 0 else "not clear" if low <= 0 else NONE

    fields = [
        Field("rung", "after.name", "rung", short, on=LONG),
        Field("engine", "after.title", "backend and device", on=LONG),
        Field(
            "seeds", lambda s: numbers.seed_list(run.seed for run in s.after.runs), "seeds", on=LONG
        ),
        Field("accuracy", "after.accuracy", "test accuracy", percent, "number", LONG),
        Field("difference", "gain", "difference", points, "number", LONG),
        Field("interval", "", "95 % interval", lambda i: span(i, points), "number", LONG),
        Field("expected", expected, "result", on=LONG),
    ]
    caption = "Runs on each backend and device, compared with the other runs of the same row"
    return Table("backends", caption, fields, found)


def engine(run: Run) -> str:
    """Returns a run's backend and device, as in ``tensorflow on AMD EPYC, 2 cores``."""
    return f"{run.tags.get('backend', 'tensorflow')} on {run.tags.get('device', 'unknown')}"


def per_class(content: Content) -> Table:
    """Lists accuracy by run and class; the table is written to CSV only."""
    rows = []
    for run in (run for run in content.runs if run.n_test):
        counts = analysis.confusion(run).to_numpy()
        images, right = counts.sum(axis=1), counts.diagonal()
        for name, n, correct in zip(run.classes, images, right, strict=True):
            accuracy = correct / n if n else math.nan
            rows.append((run.rung, run.seed, run.id, name, int(n), accuracy))
    keys = ("rung", "seed", "run_id", "class", "images", "accuracy")
    return plain_table("per_class", "Accuracy by run and class", dict.fromkeys(keys, ""), rows)


def classes(content: Content) -> Table:
    """Makes a heat map of mean accuracies: one row per class, one column per rung."""
    tidy = per_class(content).frame
    mean = {"index": "class", "columns": "rung", "values": "accuracy", "sort": False}
    wide = tidy.pivot_table(**mean) if len(tidy) else tidy
    low, high = (wide.min(axis=None), wide.max(axis=None)) if len(wide) else (0, 0)
    fields = [Field("class", itemgetter(0), "class")]
    fields += [Field(k, itemgetter(i), short(k), percent, "heat") for i, k in enumerate(wide, 1)]
    return Table(
        "classes",
        "Test accuracy by class and rung, mean over seeds",
        fields,
        [*wide.itertuples(name=None)],
        shade=lambda _, value: (value - low) / max(high - low, 1e-9),
    )


def confusion_matrix(content: Content) -> Table:
    """Counts test images of ``content.pictured`` by true class (rows) and predicted class."""
    run = content.pictured
    counts = analysis.confusion(run) if run else pd.DataFrame()
    small = len(counts) <= 30  # the page does not show a larger matrix
    fields = [Field("true class", itemgetter(0), "true \\ predicted" * small)]
    fields += [Field(k, itemgetter(i), k * small, str, "cell") for i, k in enumerate(counts, 1)]
    return Table(
        "confusion_matrix",
        f"Test images by class, {numbers.rung(run.rung)}, seed {run.seed}" if run else "",
        fields,
        [*counts.itertuples(name=None)],
        # the square root keeps small counts visible beside the large ones on the diagonal
        shade=lambda row, value: math.sqrt(value / max(sum(row[1:]), 1)),
    )
