"""The report's tables, each once: fields that give a raw value, and how a reader sees it.

The raw values become CSV as they are; page, Markdown, LaTeX, terminal and README show the same
fields, or those of them that are meant for there.
"""

import math
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from report import statistics
from report.analysis import Content, by_class, confusion
from report.attribution import Apart, Factor, plain
from report.claims import QUANTITIES, Bound, Judgement
from report.runs import Run
from report.systems import Step, System, compare, holm
from resnet import DETERMINISM, config
from resnet.shell import DEFAULT_URI, duration, hide

NONE = "-"
EXPECTED = {"inside": "as expected", "below": "above", "above": "below", "": NONE}
"""Where a difference lies by where zero lies in its interval."""
LONG, SHORT = "page results", "page results terminal"
"""Places that have room for long cells, or for a few short ones."""


class Field(NamedTuple):
    """One column.

    Attributes:
        key: its name in CSV; "" for readers only.
        of: takes the value from a row's item; or its attribute's name, by default ``key``.
        heading: a reader's; "" for machines only.
        form: makes a reader's text of the value.
        kind: how the page sets it: number, lines, verdict, mono, fold, ids, id, copy,
            heat, cell.
        on: where it stands: page (and the files beside it), terminal, readme, results (of docs/).
    """

    key: str
    of: Callable[[Any], Any] | str = ""
    heading: str = ""
    form: Callable[[Any], str] = str
    kind: str = ""
    on: str = "page"

    def value(self, item: Any) -> Any:
        """The raw value; a pair of numbers becomes two columns of CSV."""
        return (self.of if callable(self.of) else attrgetter(self.of or self.key))(item)


@dataclass(frozen=True)
class Table:
    """A table under one file name.

    ``anchor`` gives a row's address in the page, ``shade`` the depth (0 to 1) of a heat map's cell
    by item and value.
    """

    name: str
    caption: str
    fields: Sequence[Field]
    items: Sequence[Any]
    anchor: Callable[[Any], str] | None = None
    shade: Callable[[Any, Any], float] | None = None

    def at(self, place: str) -> list[Field]:
        """The fields that stand at a place."""
        return [f for f in self.fields if f.heading and place in f.on.split()]

    def shown(self, place: str = "page") -> list[list[str]]:
        """Headings and rows as a reader sees them."""
        fields = self.at(place)
        rows = [[f.form(f.value(item)) for f in fields] for item in self.items]
        return [[f.heading for f in fields], *rows]

    @property
    def frame(self) -> pd.DataFrame:
        """Every value as it is."""
        frame: dict[str, list] = {}
        for f in self.fields:
            values = [f.value(item) for item in self.items]
            if f.key and values and isinstance(values[0], tuple):
                frame |= {
                    f"{f.key}_{end}": [v[i] for v in values] for i, end in ((0, "low"), (1, "high"))
                }
            elif f.key:
                frame[f.key] = values
        return pd.DataFrame(frame)


# --- numbers for readers -----------------------------------------------------------------------


def digits(values: Iterable[float], limits: Iterable[float | None], least: int = 1) -> int:
    """Decimals with which values stand to their limits as they really do."""
    pairs = [(v, x) for v in values if math.isfinite(v) for x in limits if x is not None]
    true = [np.sign(round(value - end, 9)) for value, end in pairs]
    for n in range(least, 8):
        if [np.sign(round(round(value, n) - end, 9)) for value, end in pairs] == true:
            break
    return n


def percent(value: float, decimals: int = 1) -> str:
    """0.7231 as ``72.3 %``."""
    return NONE if math.isnan(value) else f"{100 * value:.{decimals}f} %"


def points(value: float, decimals: int = 1) -> str:
    """0.0051 as ``+0.5``: a difference of accuracies in points."""
    return NONE if math.isnan(value) else f"{100 * value:+z.{decimals}f}"


def span(interval: tuple[float, float], form: Callable[[float], str] = percent) -> str:
    """``71.4 to 73.2 %``; a dash where there is no interval, or it is a point."""
    low, high = interval
    if math.isnan(low) or low == high:
        return NONE
    start, end = form(low), form(high)
    if start.startswith("epoch "):
        return f"{start} to {end.removeprefix('epoch ')}"
    return f"{start.partition(' ')[0]} to {end}"


def p_value(p: float) -> str:
    """Two significant digits, ``< 0.0001`` below that."""
    return NONE if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def measured(value: float, unit: str, decimals: int = 1) -> str:
    """A quantity with its unit; infinity is "never"."""
    if math.isnan(value):
        return NONE
    if math.isinf(value) or (unit == "epoch" and value == 0):
        return "never"
    if unit == "accuracy":
        return percent(value, decimals)
    if unit == "points":
        return f"{points(value, decimals)} points"
    return f"{value:.{decimals}f}" if unit == "ratio" else f"epoch {round(value, decimals):g}"


def _scale(unit: str) -> int:
    return 100 if unit in ("accuracy", "points") else 1


def bound(limits: Bound, unit: str) -> str:
    """``at least 80.0 %``, ``83.0 to 87.0 %``."""

    def end(value: float) -> str:
        return measured(value, unit, digits([_scale(unit) * value], [_scale(unit) * value]))

    if unit == "epoch" and limits.max == 0:
        return "never"
    low, high = limits.ends
    if math.isinf(low):
        return f"at most {end(high)}"
    return f"at least {end(low)}" if math.isinf(high) else span((low, high), end)


def to_limits(value: float, interval: tuple[float, float], limits: Bound, unit: str) -> list[str]:
    """A value and its interval, with the digits it takes to agree with their verdict."""
    scale = _scale(unit)
    ends = [None if end is None else scale * end for end in (limits.min, limits.max)]
    n = digits([scale * x for x in (value, *interval)], ends, 2 if unit == "ratio" else 1)
    return [measured(value, unit, n), span(interval, lambda x: measured(x, unit, n))]


def number(form: str = ",.0f", unit: str = "") -> Callable[[float | None], str]:
    """Formats numbers; a dash for NaN and none."""

    def text(value: float | None) -> str:
        return NONE if value is None or math.isnan(value) else format(value, form) + unit

    return text


def whole(values: list[float]) -> str:
    """Epochs run: one number, or from the least to the most."""
    if not values:
        return NONE
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def deviation(value: float) -> str:
    """0.0021 as ``0.21``, in points."""
    return number(".2f")(100 * value)


def rung(name: str) -> str:
    """``rung 3``, or a baseline's name."""
    return name if config.rung_number(name) is None else f"rung {config.short(name)}"


def seed_list(runs: Iterable[Run]) -> str:
    """``0-4`` or ``0,2,5``, as the runner takes them."""
    seeds = sorted(run.seed for run in runs)
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def seeds(runs: Sequence[Run]) -> str:
    """``seed 0``, ``seeds 1-4``."""
    return f"seed{'s' * (len(runs) > 1)} {seed_list(runs)}"


def _raw(*keys: str, **named: Any) -> list[Field]:
    """Fields for machines only: attributes, and what is taken otherwise by its key."""
    return [Field(key) for key in keys] + [Field(key, of) for key, of in named.items()]


def _plain(name: str, caption: str, columns: dict[str, str], rows: Sequence) -> Table:
    """A table of rows as they are; ``columns`` gives a reader's heading by key, "" for none."""
    fields = [Field(k, itemgetter(i), heading) for i, (k, heading) in enumerate(columns.items())]
    return Table(name, caption, fields, rows)


# --- the tables --------------------------------------------------------------------------------


def all_tables(content: Content) -> dict[str, Table]:
    """Every table of the report by name."""
    steps, rivals = content.steps, content.rivals
    made = [
        progression(content),
        comparison("steps", "Neighbouring rungs on the same test images", content, steps),
        comparison("residual_vs_vgg", "The last rung against the baseline", content, rivals),
        *map(factors, content.apart),
        judged(content),
        *(
            table(content)
            for table in (power, backends, networks, classes, per_class, confusion_matrix)
        ),
        *(table(content) for table in (assumptions, contradictions, runs, curves)),
        *(table(content) for table in (anova, parts, alternatives, ranges, saved)),
        *(compared(content, i) for i in range(len(content.compared))),
        *(unlike(content, i) for i in range(len(content.compared))),
        environment(content),
    ]
    return {table.name: table for table in made}


def published_heading(content: Content) -> str:
    """The published column's heading; it says so where the data are not CIFAR-10's."""
    return "published (CIFAR-10) †" if content.selection.shown.reservation else "published"


def progression(content: Content) -> Table:
    """Rung by rung: published, reproduced, verdict, cost, what changed."""
    gains = {step.after.name: step.gain for step in content.steps}
    heading = published_heading(content)

    def told(s: System) -> list[str]:
        if not s.runs or math.isnan(s.published):
            waiting = s.waiting.partition(",")[0]  # a line of its own says how far it came
            return [percent(s.accuracy) if s.runs else waiting, span(s.interval)]
        return to_limits(s.accuracy, s.interval, s.band, "accuracy")

    def two(first: str, second: str) -> str:
        """Two lines, of which the second one may be missing."""
        return f"{first}\n{second}".removesuffix("\n").removesuffix(f"\n{NONE}")

    def training(s: System) -> str:
        most = s.values("epochs_run") or [e for e in [s.params.get("training.epochs")] if e]
        times = s.values("train_seconds")
        took = duration(s.mean("train_seconds"))
        if len({engine(run) for run in s.runs}) > 1 and times:  # whose mean is nobody's
            took = f"{duration(min(times))} to\n{duration(max(times))}"
        return two(f"{whole(most)} epoch{'s' * ({*most} != {1})}" if most else NONE, took)

    def size(s: System) -> str:
        operations = number(".2f", " M mult-adds")(s.mean("multiply_adds") / 1e6)
        return two(number()(s.mean("parameters")), operations)

    def interval(s: System) -> str:
        return two(told(s)[1], s.basis if s.runs else "")

    def further(s: System) -> str:
        return two(span(s.further), s.place and f"published {s.place}")

    def spread(s: System) -> str:
        own = "" if math.isnan(s.own_deviation) else f"own {deviation(s.own_deviation)}"
        return two(deviation(s.deviation), own)

    def verdict(s: System) -> str:
        return two(s.verdict, s.assumed if s.verdict == "fails as assumed" else "")

    def tolerances(s: System) -> str:
        fails, holds = s.tolerances
        if math.isnan(holds):
            return NONE
        below = f"fails < {deviation(fails)}" if fails else ""
        return two(f"holds ≥ {deviation(holds)}", below)

    def gain(s: System) -> float:
        return gains.get(s.name, math.nan)

    def mean(metric: str) -> Callable[[System], float]:
        return lambda s: s.mean(metric)

    everywhere = "page terminal readme results"
    held = not content.selection.shown.reservation
    verdict_on = "page readme results" if held else "page"
    fields = [
        Field("", "heading", "rung", on=everywhere),
        Field("", lambda s: told(s)[0], "reproduced", str, "number", "page readme results"),
        Field("", lambda s: told(s)[0], "here", str, "number", "terminal"),
        Field("", verdict, "verdict", str, "verdict", verdict_on),
        Field("verdict", "", "verdict", str, "verdict", "terminal" if held else ""),
        Field("published", "", heading, percent, "number", everywhere),
        Field("difference", "", "difference", points, "number", "page readme results"),
        Field("step_gain", gain, "gain", points, "number", "terminal"),
        Field("", interval, "95 % interval", str, "lines", "page results"),
        Field("seeds", lambda s: len(s.accuracies), "seeds", str, "number", "terminal"),
        Field("", tolerances, "tolerance", kind="lines", on="page results"),
        Field("", further, "one further run", kind="lines"),
        Field("", spread, "deviation", kind="lines"),
        Field("", training, "training", str, "lines", "page results"),
        Field("train_seconds", mean("train_seconds"), "time", duration, "number", "terminal"),
        Field("", size, "parameters", kind="lines"),
        Field("what_changed", lambda s: "; ".join(s.changes), "what changed", _list, "fold"),
        *_raw("title", "assumed", "interval", "further", "deviation", "own_deviation"),
        *_raw(rung="name", evidence="basis", tolerance="tolerances"),
        *_raw(reproduced="accuracy", published_is="place", seed_floor="floor"),
        *_raw(**{key: mean(key) for key in ("parameters", "multiply_adds", "epochs_run")}),
    ]
    caption = f"Test accuracy, {content.selection.shown.label}"
    return Table("progression", caption, fields, content.systems, attrgetter("slug"))


def _list(text: str) -> str:
    return text.replace("; ", "\n") or NONE


def shown(j: Judgement) -> list[str]:
    """What a claim's quantity was measured to be, epochs by seed, and its interval."""
    if j.unit != "epoch" or not j.values:
        return to_limits(j.value, j.interval, j.claim.bound, j.unit)
    each = dict.fromkeys(measured(value, j.unit) for value in sorted(j.values))
    return [", ".join(each).replace(", epoch", ","), NONE]


def _signs(text: str) -> str:
    return text.replace("at least", "≥").replace("at most", "≤")


def judged(content: Content) -> Table:
    """The claims with verdict, value, bound and evidence."""

    def told(j: Judgement) -> str:
        return f"{j.claim.text}\n{j.claim.id} · {rung(j.claim.rung)}"

    def limits(j: Judgement) -> str:
        return bound(j.claim.bound, j.unit)

    fields = [
        Field("", told, "claim", on=LONG),
        Field("claim", "claim.id", "claim", on="terminal"),
        Field("rung", "claim.rung", "rung", config.short, on="terminal"),
        Field("verdict", "", "verdict", str, "verdict", SHORT),
        Field("", lambda j: shown(j)[0], "measured", str, "number", SHORT),
        Field("", lambda j: shown(j)[1], "95 % interval", str, "lines", LONG),
        Field("", limits, "holds if", str, "lines", LONG),
        Field("", limits, "holds if", _signs, "lines", "terminal"),
        Field("evidence", "", "evidence", on=LONG),
        Field("", lambda j: QUANTITIES[j.claim.quantity].meaning, "measured as", kind="fold"),
        Field("run_ids", lambda j: " ".join(r.id for r in j.runs), "runs", kind="ids"),
        *_raw("value", "interval", min="claim.bound.min", max="claim.bound.max"),
        *_raw(against="claim.against", text="claim.text", quantity="claim.quantity"),
    ]
    anchor = attrgetter("claim.id")
    return Table("claims", "The claims, judged", fields, content.claims, anchor)


def _step_fields(content: Content) -> list[Field]:
    heading = published_heading(content).replace("published", "published gain")
    return [
        Field("", "title", "step", on=LONG),
        *_raw(**{"from": "before.name", "to": "after.name"}),
        Field("published_gain", "published", heading, points, "number", LONG),
    ]  # fmt: skip


def comparison(name: str, caption: str, content: Content, steps: tuple[Step, ...]) -> Table:
    """Paired comparisons of two systems each."""
    fields = [*_step_fields(content), *_paired_fields("gain", steps, steps is content.steps)]
    return Table(name, caption, fields, steps)


def _paired_fields(gain: str, steps: Sequence[Step], together: bool = True) -> list[Field]:
    """What a paired comparison says; ``together`` corrects the p of all steps."""
    corrected = holm(steps) if together else {}
    count = number(",.4g")
    return [
        Field(gain, "gain", gain, points, "number", SHORT),
        Field("interval", "", "95 % interval", lambda i: span(i, points), "number", SHORT),
        Field("pairs", lambda s: len(s.gains)),
        Field("wins", "", "one run beats one", lambda p: percent(p, 0), "number", LONG),
        Field("p", "", "p", p_value, "number"),
        Field("p_holm", lambda s: corrected.get(s.after.name, math.nan),
              "p (Holm)" * together, p_value, "number"),
        Field("mcnemar_p", "", "McNemar p", p_value, "number"),
        Field("agreement", "", "agreement", percent, "number"),
        Field("newly_right", "", "newly right", count, "number"),
        Field("newly_wrong", "", "newly wrong", count, "number"),
        Field("evidence", "basis", "evidence", on=LONG),
    ]  # fmt: skip


def compared(content: Content, i: int) -> Table:
    """Rung by rung the set shown and the i-th compared, which is of no other table."""
    other = content.compared[i]
    labels = [c.selection.shown.label for c in (content, other)]
    steps = content.beside(other)

    def told(s: System) -> str:
        return f"{percent(s.accuracy)}\n{seeds(s.runs)}" if s.runs else s.waiting

    def changes(s: Step) -> str:
        both = s.before.runs and s.after.runs
        return "; ".join(config.changes(s.before.params, s.after.params)) if both else ""

    fields = [
        Field("", "before.heading", "rung"),
        Field("", lambda s: f"{s.before.heading}\n{s.basis}", "rung", on="terminal"),
        Field("", lambda s: told(s.before), "accuracy, shown", kind="lines"),
        Field("", lambda s: told(s.after), "accuracy, compared", kind="lines"),
        *_raw(rung="before.name", shown_set=lambda s: labels[0], compared_set=lambda s: labels[1]),
        Field("shown", "before.accuracy", "shown", percent, "number", "terminal"),
        Field("compared", "after.accuracy", "compared", percent, "number", "terminal"),
        *_paired_fields("difference", steps),
        Field("different_settings", changes, "different settings", _list, "fold"),
        *_raw(shown_runs=lambda s: " ".join(run.id for run in s.before.runs)),
        *_raw(compared_runs=lambda s: " ".join(run.id for run in s.after.runs)),
    ]
    caption = f"Shown: {labels[0]}. Compared: {labels[1]}"
    return Table(f"compared_{i + 1}", caption, fields, steps)


def unlike(content: Content, i: int) -> Table:
    """In what data, software and hardware the set shown and the i-th compared differ."""
    shown, other = (
        {"set": c.selection.shown.label, **dict(environment(c).items)}
        for c in (content, content.compared[i])
    )
    values = [(what, shown.get(what, NONE), other.get(what, NONE)) for what in shown | other]
    columns = {"what": "what", "shown": "shown", "compared": "compared"}
    rows = [row for row in values if row[1] != row[2]]
    caption = f"In what {other['set']} differs"
    return _plain(f"compared_{i + 1}_sets", caption, columns, rows)


def power(content: Content) -> Table:
    """How many seeds tell a gain of the published size from seed noise."""
    ran = sum(bool(s.runs) for s in content.systems)

    def needed(values: str) -> Callable[[Step], int | None]:
        return lambda s: statistics.seeds_needed(s.published, s.together(values) ** 2, ran)

    def both(values: str) -> Callable[[Step], float]:
        return lambda s: s.together(values)

    best = "at best, by the floor"
    fields = [
        *_step_fields(content),
        Field("deviation", both("deviation"), "deviation of the gain", deviation, "number", LONG),
        Field("seeds_needed", needed("deviation"), "seeds it takes", number("d"), "number", LONG),
        Field("floor", both("floor"), "its floor", deviation, "number", LONG),
        Field("seeds_by_floor", needed("floor"), best, number("d"), "number", LONG),
    ]
    caption = "Seeds a row that it takes to see the published gain (power 80 %, at 5 %)"
    return Table("power", caption, fields, [*content.steps, *content.rivals])


def backends(content: Content) -> Table:
    """Where a row's runs are of several backends or devices: each held against the others."""
    found = []
    for s in content.systems:
        names = dict.fromkeys(map(engine, s.runs))
        for name in names if len(names) > 1 else ():
            mine, others = (
                replace(s, title=name, runs=tuple(r for r in s.runs if (engine(r) == name) is own))
                for own in (True, False)
            )
            found.append(compare(others, mine))
    fields = [
        Field("rung", "after.name", "rung", config.short, on=LONG),
        Field("engine", "after.title", "backend and device", on=LONG),
        Field("seeds", lambda s: seed_list(s.after.runs), "seeds", on=LONG),
        Field("accuracy", "after.accuracy", "test accuracy", percent, "number", LONG),
        Field("difference", "gain", "to the others", points, "number", LONG),
        Field("interval", "", "95 % interval", lambda i: span(i, points), "number", LONG),
        Field("expected", lambda s: EXPECTED[statistics.place(0.0, s.interval)], "is", on=LONG),
    ]
    return Table("backends", "Rows of several backends: each against its others", fields, found)


def engine(run: Run) -> str:
    """``tensorflow on AMD EPYC, 2 cores``."""
    return f"{run.tags.get('backend', 'tensorflow')} on {run.tags.get('device', 'unknown')}"


def networks(content: Content) -> Table:
    """The last rung beside the baselines: settings that differ, and what was measured."""
    systems = list(dict.fromkeys(s for step in content.rivals for s in (step.after, step.before)))
    known = dict.fromkeys(key for s in systems for key in s.params)
    settings = [  # what one of them lacks as a block is one row
        key
        for key in known
        if key.rpartition(".")[0] not in known
        and len({setting(s.params, key) for s in systems}) > 1
    ]

    def of_params(key: str) -> Callable[[System], str]:
        return lambda s: setting(s.params, key)

    facts: dict[str, Callable[[System], str]] = {
        **{key: of_params(key) for key in settings},
        "parameters": lambda s: number()(s.mean("parameters")),
        "multiply-adds": lambda s: number()(s.mean("multiply_adds")),
        "training time": lambda s: duration(s.mean("train_seconds")),
        published_heading(content): lambda s: percent(s.published),
        "reproduced": lambda s: percent(s.accuracy) if s.runs else s.waiting,
        "95 % interval": lambda s: span(s.interval),
    }
    rows = [(what, *map(fact, systems)) for what, fact in facts.items()]
    columns = {"what": "what"} | {s.name: s.heading for s in systems}
    caption = "In what the two networks differ, and what they reached"
    return _plain("networks", caption, columns, rows if systems else [])


def setting(params: dict, key: str) -> str:
    """A value of an experiment, or a block of them in one line."""
    if (value := params.get(key)) is not None:
        return f"{value:g}" if isinstance(value, float) else str(value)
    inside = {k.removeprefix(f"{key}."): v for k, v in params.items() if k.startswith(f"{key}.")}
    parts = [f"{k} {v}" for k, v in inside.items()]
    return ", ".join(parts) or ("none" if key in params else NONE)


def per_class(content: Content) -> Table:
    """Accuracy by run and class, tidy; for machines."""
    rows = [
        (run.rung, run.seed, run.id, name, int(row["images"]), row["accuracy"])
        for run in content.runs
        if run.n_test
        for name, row in by_class(run).iterrows()
    ]
    keys = ("rung", "seed", "run_id", "class", "images", "accuracy")
    return _plain("per_class", "Accuracy by run and class", dict.fromkeys(keys, ""), rows)


def classes(content: Content) -> Table:
    """The same as a heat map: classes down, rungs across, each the mean over seeds."""
    tidy = per_class(content).frame
    mean = {"index": "class", "columns": "rung", "values": "accuracy", "sort": False}
    wide = tidy.pivot_table(**mean) if len(tidy) else tidy
    low, high = (wide.min(axis=None), wide.max(axis=None)) if len(wide) else (0, 0)
    fields = [Field("class", itemgetter(0), "class")]
    fields += [
        Field(k, itemgetter(i), config.short(k), percent, "heat") for i, k in enumerate(wide, 1)
    ]
    return Table(
        "classes",
        "Test accuracy by class and rung, mean over seeds",
        fields,
        [*wide.itertuples(name=None)],
        shade=lambda _, value: (value - low) / max(high - low, 1e-9),
    )


def confusion_matrix(content: Content) -> Table:
    """The pictured run's counts: true classes down, predicted ones across."""
    run = content.pictured
    counts = confusion(run) if run else pd.DataFrame()
    small = len(counts) <= 30  # more are for machines only
    fields = [Field("true class", itemgetter(0), "true \\ predicted" * small)]
    fields += [Field(k, itemgetter(i), k * small, str, "cell") for i, k in enumerate(counts, 1)]
    return Table(
        "confusion_matrix",
        f"Test images by class, {rung(run.rung)}, seed {run.seed}" if run else "",
        fields,
        [*counts.itertuples(name=None)],
        # by the root, because the diagonal holds nearly everything
        shade=lambda row, value: math.sqrt(value / max(sum(row[1:]), 1)),
    )


def assumptions(content: Content) -> Table:
    """What each experiment had to assume; a value shared by several rungs is one row."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for s in content.systems:
        for run in s.runs[:1]:
            for key, reason in run.assumed.items():
                value = setting(run.params, key)
                found.setdefault((key, value, str(reason)), []).append(config.short(s.name))
    columns = {"setting": "setting", "value": "value", "why": "assumed because", "rungs": "in"}
    rows = [(*key, ", ".join(names)) for key, names in found.items()]
    return _plain("assumptions", "Values the study does not state", columns, rows)


def factors(step: Apart) -> Table:
    """What each factor of a step earned, by three ways of counting."""

    def head(f: Factor) -> str:
        return f"{plain(f.key)}\n{f.key.partition('.')[0]}{', credited by the study' * f.credited}"

    def lines(value: float, interval: tuple[float, float]) -> str:
        return f"{points(value)}\n{span(interval, points)}"

    def gain(way: str) -> Callable[[Factor], str]:
        return lambda f: lines(getattr(f, way).gain, getattr(f, way).interval)

    ways = ("leave_one_out", "add_one_in")
    fields = [
        Field("", head, "factor", on=SHORT),
        Field("", lambda f: lines(f.value, f.interval), "Shapley value", str, "lines", SHORT),
        *(Field("", gain(way), way.replace("_", "-"), str, "lines", SHORT) for way in ways),
        *_raw("key", "credited", "interval", shapley="value", seeds=lambda f: len(f.shapley)),
        *_raw(**{way: f"{way}.gain" for way in ways}),
        *_raw(**{f"{way}_interval": f"{way}.interval" for way in ways}),
    ]
    before, after = step.step.before.short, step.step.after.short
    seeds = ", ".join(map(str, step.seeds))
    caption = f"Factors of {before} → {after}, in points, with 95 % intervals; seeds: {seeds}"
    return Table(f"factors_{step.step.after.slug}", caption, fields, step.factors)


def anova(content: Content) -> Table:
    """Main effects and interactions of the steps that have three seeds or more."""
    fields = [
        Field("factors", "", "factor, or factors together", plain),
        Field("step", "", "step"),
        Field("effect", "", "effect", points, "number"),
        Field("interval", "", "95 % interval", lambda i: span(i, points), "number"),
        Field("p", "", "p", p_value, "number"),
    ]
    terms = [term for step in content.apart for term in step.anova()]
    return Table("anova", "Main effects and interactions, in points", fields, terms)


def parts(content: Content) -> Table:
    """The runs that are no rung's, by what they changed; for machines."""
    metrics = ("test_accuracy", "epochs_run", "shared_epochs", "train_seconds")
    fields = _raw("rung", "seed", **{key: lambda r, key=key: r.metric(key) for key in metrics})
    fields += _raw(run_id="id", config_hash=lambda run: run.tags["config_hash"])
    return Table("parts", "Subsets of steps, and alternatives", fields, content.parts)


def alternatives(content: Content) -> Table:
    """What each row was with one assumed value changed."""
    fields = [
        Field("rung", "step.before.name", "rung", config.short),
        Field("key", "", "setting", kind="mono"),
        Field("value", lambda a: setting(a.step.after.params, a.key), "value"),
        Field("reason", "", "because"),
        Field("test_accuracy", "step.after.accuracy", "test accuracy", percent, "number"),
        Field("difference", "step.gain", "to the row", points, "number"),
        Field("interval", "step.interval", "95 % interval", lambda i: span(i, points), "number"),
        Field("evidence", "step.basis", "evidence"),
        *_raw(run_ids=lambda a: " ".join(run.id for run in a.step.after.runs)),
    ]
    rows = [a for row in content.varied for a in row.run]
    return Table("alternatives", "With one assumed value changed", fields, rows)


def ranges(content: Content) -> Table:
    """From where to where a row goes over its alternatives, beside the published accuracy."""
    heading = published_heading(content)

    def reach(interval: tuple[float, float]) -> str:
        return span(interval).replace(NONE, percent(interval[0]))

    fields = [
        Field("rung", "system.name", "rung", config.short, on=SHORT),
        Field("as_assumed", "system.accuracy", "as assumed", percent, "number", SHORT),
        Field("span", "", "range", reach, "number", SHORT),
        Field("published", "system.published", heading, percent, "number", SHORT),
        Field("reached", "", "the published accuracy is", on=LONG),
        Field("alternatives", lambda row: len(row.run), "alternatives run"),
        Field("untried", lambda row: len(row.untried), "not run"),
        Field("seeds", lambda row: whole([len(s.runs) for s in row.tried]), "seeds each"),
    ]
    caption = "The range of a row over what it had to assume"
    return Table("ranges", caption, fields, [row for row in content.varied if row.run])


def saved(content: Content) -> Table:
    """Epochs that runs shared with others instead of training them."""
    groups = {
        "rungs and baselines": content.runs,
        "steps taken apart": [run for run in content.parts if "=" not in run.rung],
        "assumptions varied": [run for run in content.parts if "=" in run.rung],
        "in all": [*content.runs, *content.parts],
    }

    def row(what: str, made: list[Run]) -> tuple:
        epochs, shared = np.nan_to_num([(r.metric("epochs_run"), r.shared) for r in made]).T
        counts = len(made), (shared < 1).sum(), epochs.sum(), epochs @ (1 - shared)
        return what, *map(round, counts), sum(run.shared_seconds for run in made)

    counts = ("runs", "trainings", "epochs", "epochs_trained")
    fields = [
        Field("what", itemgetter(0), "what", on=LONG),
        *(Field(key, itemgetter(i), key.replace("_", " "), number(), "number", LONG)
          for i, key in enumerate(counts, 1)),
        Field("seconds_saved", itemgetter(5), "time saved", duration, "number", LONG),
    ]  # fmt: skip
    rows = [row(what, made) for what, made in groups.items() if made and content.parts]
    return Table("saved", "What sharing of trainings saved", fields, rows)


def ablate_command(content: Content, what: str, seeds: Iterable[int] = (0,)) -> str:
    """The command that makes runs of the ladder's parts."""
    shown = content.selection.shown
    chosen = ",".join(map(str, sorted({*seeds})))
    words = ["runner.py", "--ablate", what, "--seeds", chosen]
    words += ["--profile", shown.profile] if shown.profile != "full" else []
    some = next(iter((*content.runs, *content.parts)), None)
    words += data_option(some) + bits_options(some) if some else []
    return f"{python(some)} {shlex.join(words)}"


def contradictions(content: Content) -> Table:
    """What the study says in two ways or leaves out."""
    columns = {"topic": "topic", "study": "the study", "settled": "settled"}
    rows = [[*c.model_dump().values()] for c in content.study.contradictions]
    return _plain("contradictions", "Left open or contradictory in the study", columns, rows)


def data_option(run: Run) -> list[str]:
    """The runner's option for a run's images."""
    dataset = run.tags.get("dataset", "")
    if dataset == "cifar10":  # the full profile's
        return [] if run.tags.get("profile", "full") in ("full", "") else ["--data", dataset]
    return ["--data", "digits" if dataset == "digits" else run.source or f"PATH-OF-{dataset}"]


def python(run: Run | None = None) -> str:
    """What a command begins with: the Makefile's environment for the backend of a run, if any."""
    name = run.tags.get("backend", "tensorflow") if run else "tensorflow"
    folder = "gpu" if run and "NVIDIA" in run.tags.get("device", "") else name
    if name == "tensorflow":
        return ".venv/bin/python"
    flags = re.search(r"XLA_FLAGS=(.*)", run.tags.get("instruction_set", "")) if run else None
    own = flags[1] if flags and flags[1] != f"{DETERMINISM}=true" else ""
    set_ = f"XLA_FLAGS={shlex.quote(own)} " if own else ""
    return f"{set_}KERAS_BACKEND={shlex.quote(name)} {shlex.quote(f'.venv-{folder}')}/bin/python"


def repeatable(run: Run) -> bool:
    """Whether nothing that a run was started with kept its device from computing it bit for bit."""
    return f"{DETERMINISM}=false" not in run.tags.get("instruction_set", "").lower()


def bits_options(run: Run) -> list[str]:
    """The runner's options for what a run's bits depend on and can be chosen."""
    if run.tags.get("backend") == "tensorflow":
        return ["--cpus-per-run", run.tags["threads"]] if "threads" in run.tags else []
    return ["--lanes", run.tags["lanes"]] if run.tags.get("lanes", "1") != "1" else []


def rerun_command(run: Run) -> str:
    """The command that repeats a run; bit for bit on a device of the same kind if it can be."""
    tags = run.tags
    words = ["runner.py", "--ladder", config.short(run.rung), "--seed", str(run.seed)]
    profile = tags.get("profile", "full")
    if profile not in ("full", ""):
        words += ["--profile", profile]
    words += data_option(run) + bits_options(run)
    for override in re.split(r"\s+(?=[\w.]+=)", tags.get("modified", "")):
        words += ["--set", override] if override else []
    return f"{python(run)} {shlex.join([*words, '--fresh'])}"


def report_command(content: Content) -> str:
    """The command that makes this report again."""
    shown = content.selection.shown
    words = ["-m", "report", "--dataset", shown.fingerprint[:12] or shown.dataset]
    words += ["--profile", shown.profile, "--modified", shown.modified]
    words += ["--recorded" if shown.recorded else "--own"]
    for other in content.compared:
        words += ["--compare", other.selection.shown.label]
    words += ["--tracking-uri", hide(content.uri)] if content.uri != DEFAULT_URI else []
    return f"{python()} {shlex.join([*words, '--experiment', content.experiment])}"


def _code(run: Run) -> str:
    changed = " + changes" * (run.tags.get("git_dirty") == "true")
    return run.tags.get("git_commit", "unknown")[:12] + changed


def runs(content: Content) -> Table:
    """Run by run: what it measured, with what code and by which command."""
    published = {s.name: s.published for s in content.systems}

    def tag(name: str) -> Callable[[Run], str]:
        return lambda run: run.tags.get(name, "")

    def metric(name: str) -> Callable[[Run], float]:
        return lambda run: run.metric(name)

    metrics = sorted({key for run in content.runs for key in run.metrics if "/" not in key})
    tags = ("dataset", "dataset_fingerprint", "profile", "modified", "git_commit", "git_dirty")
    fields = [
        Field("run_id", "id", "run", kind="id"),
        Field("rung", "", "rung", config.short),
        Field("seed", "", "seed", kind="number"),
        Field("", metric("test_accuracy"), "test accuracy", percent, "number"),
        Field("images_interval", "interval", "by the images", span, "number"),
        Field("seed_floor", "floor", "floor", deviation, "number"),
        Field("", metric("train_seconds"), "training time", duration, "number"),
        Field("begun", "", "begun (UTC)", lambda t: f"{t:%Y-%m-%d %H:%M}", "lines"),
        Field("config_hash", tag("config_hash"), "configuration", lambda text: text[:12], "mono"),
        Field("", _code, "code (git commit)", kind="mono"),
        Field("again_with", rerun_command, "again with", kind="copy"),
        *_raw("title", published=lambda run: published[run.rung]),
        *_raw(**{name: tag(name) for name in tags}, **{name: metric(name) for name in metrics}),
    ]
    return Table("runs", "Runs shown", fields, content.runs, lambda run: run.id[:8])


def curves(content: Content) -> Table:
    """Every run's curves, a row an epoch; for machines."""
    rows = [
        (run.rung, run.seed, run.id, epoch, *values)
        for run in content.runs
        for epoch, *values in run.history.itertuples(name=None)
    ]
    keys = ["rung", "seed", "run_id", "epoch", *(content.runs[0].history if rows else ())]
    return _plain("curves", "Curves by epoch", dict.fromkeys(keys, ""), rows)


def environment(content: Content) -> Table:
    """Data, software and hardware, each value once."""
    shown = content.selection.shown

    def each(values: Iterable[str | None]) -> str:
        return ", ".join(dict.fromkeys(value for value in values if value))

    def tag(name: str) -> str:
        return each(run.tags.get(name) for run in content.runs)

    versions = sorted({t for run in content.runs for t in run.tags if t.startswith("version.")})
    hardware = (
        *("device", "threads", "lanes", "precision"),
        *("instruction_set", "backend", "resumed_elsewhere"),
    )
    facts = {
        "dataset": shown.dataset,
        "fingerprint": shown.fingerprint,
        "training and test images": each(
            f"{r.n_train:,} and {r.n_test:,}" for r in content.runs if r.n_test
        ),
        "profile": shown.profile,
        "modified settings": shown.modified or "none",
        "seeds": ", ".join(map(str, sorted({run.seed for run in content.runs}))),
        "training time in all": duration(content.seconds),
        **{name.replace("_", " "): tag(name) for name in hardware},
        **{name.removeprefix("version."): tag(name) for name in versions},
        "code (git commit)": each(map(_code, content.runs)),
        "SHA-256 of claims.yaml as a run began": tag("claims_sha256"),
        "MLflow experiment": content.experiment,
    }
    rows = [fact for fact in facts.items() if fact[1]]
    columns = {"what": "what", "value": "value"}
    return _plain("environment", "Data, software, hardware", columns, rows)
