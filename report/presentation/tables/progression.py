"""The table of accuracies: rung by rung what was published, measured and decided."""

import math
from collections.abc import Callable
from operator import attrgetter

from report.analysis import Content, System
from report.presentation.tables.message import why
from report.presentation.tables.numbers import (
    NONE,
    deviation,
    least_to_most,
    number,
    percent,
    points,
    span,
    to_limits,
)
from report.presentation.tables.results import as_list, engine, published_heading, starred
from report.presentation.tables.table import Field, Table, raw
from resnet.host.shell import duration


def progression(content: Content) -> Table:
    """Tells rung by rung what was published, measured and decided, why, and what changed."""
    gains = {step.after.name: step.gain for step in content.steps}
    heading = published_heading(content)
    published = any(not math.isnan(s.published) for s in content.systems)
    verdicts = "page readme results" if published and not content.run_set.reservation else ""

    def gain(s: System) -> float:
        return gains.get(s.name, math.nan)

    def mean(metric: str) -> Callable[[System], float]:
        return lambda s: s.mean(metric)

    def verdict(s: System) -> str:
        return f"{s.verdict}\n{why(content, s)}".removesuffix("\n")

    def place(places: str) -> str:
        return places if published else ""

    fields = [
        Field("", "heading", "rung", on="page terminal readme results"),
        Field("", lambda s: _accuracy(s)[0], "here", str, "number", "page terminal readme results"),
        *raw("published", "difference"),
        Field(
            "",
            lambda s: percent(s.published, s.decimals),
            heading,
            str,
            "number",
            place("page terminal readme results"),
        ),
        Field(
            "",
            lambda s: points(s.difference, s.decimals),
            "difference",
            str,
            "number",
            place("page readme results"),
        ),
        Field("", verdict, "verdict", str, "verdict", verdicts),
        Field("verdict", "", "verdict", starred, "verdict", "terminal" if verdicts else ""),
        Field("step_gain", gain, "gain", points, "number", "terminal"),
        Field("", lambda s: _accuracy(s)[1], "95 % interval", str, "lines", "page results"),
        Field("seeds", lambda s: len(s.accuracies), "seeds", str, "number", "page terminal"),
        Field("train_seconds", mean("train_seconds")),
        Field("", _short_time, "time", str, "number", "terminal"),
        Field("what_changed", lambda s: "; ".join(s.changes), "changed", as_list, "below"),
        *raw("title", "assumed", "interval", "deviation", "own_deviation"),
        *raw(rung="name", evidence="basis", reproduced="accuracy", seed_floor="floor"),
        *raw(**{key: mean(key) for key in ("parameters", "multiply_adds", "epochs_run")}),
    ]
    caption = f"Test accuracy, {content.run_set.label}"
    return Table("progression", caption, fields, content.systems, attrgetter("slug"))


def rows(content: Content) -> Table:
    """Tells how large each row is, how long it trained, and how far its seeds lie apart."""
    places = "page results"

    def mean(metric: str) -> Callable[[System], float]:
        return lambda s: s.mean(metric)

    fields = [
        Field("rung", "name"),
        Field("", "heading", "rung", on=places),
        Field("deviation", "", "deviation", deviation, "number", places),
        Field("own_deviation", "", "of its own seeds", deviation, "number"),
        Field("floor", "", "floor", deviation, "number"),
        Field("", _epochs, "epochs", str, "number", places),
        Field("", _time, "training time", str, "lines", places),
        Field("parameters", mean("parameters"), "parameters", number(), "number"),
        Field("multiply_adds", mean("multiply_adds"), "multiply-adds", _millions, "number"),
    ]
    return Table("rows", "The rows: deviation between seeds in points, size, time", fields,
                 [s for s in content.systems if s.runs])  # fmt: skip


def _millions(value: float) -> str:
    return number(".2f", " M")(value / 1e6)


def _accuracy(s: System) -> list[str]:
    """The accuracy and its interval, or what became of the row."""
    if not s.runs or math.isnan(s.published):
        waiting = s.waiting.partition(",")[0]  # a line of its own says how far it came
        return [percent(s.accuracy) if s.runs else waiting, span(s.interval)]
    return to_limits(s.accuracy, s.interval, s.band, "accuracy", s.decimals)


def _epochs(s: System) -> str:
    return least_to_most(s.values("epochs_run"))


def _short_time(s: System) -> str:
    """The mean over runs of one device; from the least to the most where there are several."""
    times = s.values("train_seconds")
    if len({engine(run) for run in s.runs}) < 2 or not times:
        return duration(s.mean("train_seconds"))
    return f"{duration(min(times))} to {duration(max(times))}"


def _time(s: System) -> str:
    """The mean over runs of one device; by device where there are several."""
    by: dict[str, list[float]] = {}
    for run in s.runs:
        if not math.isnan(seconds := run.metric("train_seconds")):
            by.setdefault(engine(run), []).append(seconds)
    times = {name: duration(sum(all_) / len(all_)) for name, all_ in by.items()}
    if len(times) < 2:
        return next(iter(times.values()), NONE)
    return "\n".join(f"{time} ({name})" for name, time in times.items())
