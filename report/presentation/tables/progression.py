"""The table of accuracies, and the table of deviations, sizes and times."""

import math
from functools import partial
from operator import attrgetter, methodcaller

from report.analysis import Content, System
from report.presentation.tables import numbers
from report.presentation.tables.message import accuracy, why
from report.presentation.tables.numbers import NONE, deviation, percent, points
from report.presentation.tables.results import as_list, engine, published_heading, starred
from report.presentation.tables.table import LONG, Field, Table, raw
from resnet.host.messages import duration

_mean = partial(methodcaller, "mean")


def progression(content: Content) -> Table:
    """Lists each row's measured accuracy, published accuracy, verdict and changes."""
    gains = {step.after.name: step.gain for step in content.steps}
    heading = published_heading(content)
    published = any(not math.isnan(s.published) for s in content.systems)
    verdicts = "page readme results" if published and not content.run_set.reservation else ""
    everywhere = "page terminal readme results"
    shown = everywhere if published else ""
    differs = "page readme results" if published else ""

    def verdict(s: System) -> str:
        return f"{s.verdict}\n{why(content, s)}".removesuffix("\n")

    fields = [
        Field("", "heading", "rung", on=everywhere),
        Field("", lambda s: accuracy(s)[0], "here", str, "number", everywhere),
        *raw("published", "difference"),
        Field("", lambda s: percent(s.published, s.decimals), heading, str, "number", shown),
        Field("", lambda s: points(s.difference, s.decimals), "difference", str, "number", differs),
        Field("", verdict, "verdict", str, "verdict", verdicts),
        Field("verdict", "", "verdict", starred, "verdict", "terminal" if verdicts else ""),
        Field("step_gain", lambda s: gains.get(s.name, math.nan), "gain",
              numbers.gains_form(content.systems), "number", "terminal"),
        Field("", lambda s: accuracy(s)[1], "95 % interval", str, "lines", "page results"),
        Field("seeds", lambda s: len(s.accuracies), "seeds", str, "number", "page terminal"),
        Field("train_seconds", _mean("train_seconds"), "time", duration, "number", "terminal"),
        Field("what_changed", lambda s: "; ".join(s.changes), "changed", as_list, "below"),
        *raw("title", "assumed", "interval", "deviation", "own_deviation"),
        *raw(rung="name", evidence="basis", reproduced="accuracy", seed_floor="floor"),
        *raw(**{key: _mean(key) for key in ("parameters", "multiply_adds", "epochs_run")}),
    ]  # fmt: skip
    caption = f"Test accuracy, {content.run_set.label}"
    return Table("progression", caption, fields, content.systems, attrgetter("slug"))


def rows(content: Content) -> Table:
    """Lists each row's network size, training time and deviation between seeds."""
    epochs, to = methodcaller("values", "epochs_run"), numbers.least_to_most
    fields = [
        Field("rung", "name"),
        Field("", "heading", "rung", on=LONG),
        Field("deviation", "", "deviation", deviation, "number", LONG),
        Field("own_deviation", "", "own deviation", deviation, "number"),
        Field("floor", "", "floor", deviation, "number"),
        Field("", epochs, "epochs", to, "number", LONG),
        Field("", _time, "training time", str, "lines", LONG),
        Field("parameters", _mean("parameters"), "parameters", numbers.number(), "number"),
        Field("multiply_adds", _mean("multiply_adds"), "multiply-adds", _millions, "number"),
    ]
    caption = "Epochs, training time and deviation between seeds (in points)"
    return Table("rows", caption, fields, [s for s in content.systems if s.runs])


def _millions(value: float) -> str:
    return numbers.number(".2f", " M")(value / 1e6)


def _time(s: System) -> str:
    of_device: dict[str, list[float]] = {}
    for run in s.runs:
        if not math.isnan(seconds := run.metric("train_seconds")):
            of_device.setdefault(engine(run), []).append(seconds)
    times = {name: duration(sum(every) / len(every)) for name, every in of_device.items()}
    if len(times) < 2:
        return next(iter(times.values()), NONE)
    return "\n".join(f"{time} ({name})" for name, time in times.items())
