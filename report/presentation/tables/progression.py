"""The progression table: rung by rung what was published, reproduced and decided."""

import math
from collections.abc import Callable
from operator import attrgetter

from report.analysis import Content, System
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
from report.presentation.tables.results import as_list, engine, published_heading
from report.presentation.tables.table import Field, Table, raw
from resnet.host.shell import duration


def progression(content: Content) -> Table:
    """Tells rung by rung what was published, reproduced and decided, and what it cost."""
    gains = {step.after.name: step.gain for step in content.steps}
    heading = published_heading(content)

    def gain(s: System) -> float:
        return gains.get(s.name, math.nan)

    def mean(metric: str) -> Callable[[System], float]:
        return lambda s: s.mean(metric)

    everywhere = "page terminal readme results"
    held = not content.run_set.reservation
    verdict_on = "page readme results" if held else "page"
    fields = [
        Field("", "heading", "rung", on=everywhere),
        Field("", lambda s: _accuracy(s)[0], "reproduced", str, "number", "page readme results"),
        Field("", lambda s: _accuracy(s)[0], "here", str, "number", "terminal"),
        Field("", _verdict, "verdict", str, "verdict", verdict_on),
        Field("verdict", "", "verdict", str, "verdict", "terminal" if held else ""),
        Field("published", "", heading, percent, "number", everywhere),
        Field("difference", "", "difference", points, "number", "page readme results"),
        Field("step_gain", gain, "gain", points, "number", "terminal"),
        Field("", _interval, "95 % interval", str, "lines", "page results"),
        Field("seeds", lambda s: len(s.accuracies), "seeds", str, "number", "terminal"),
        Field("", _tolerances, "tolerance", kind="lines", on="page results"),
        Field("", _further, "one further run", kind="lines"),
        Field("", _spread, "deviation", kind="lines"),
        Field("", _training, "training", str, "lines", "page results"),
        Field("train_seconds", mean("train_seconds"), "time", duration, "number", "terminal"),
        Field("", _size, "parameters", kind="lines"),
        Field("what_changed", lambda s: "; ".join(s.changes), "what changed", as_list, "fold"),
        *raw("title", "assumed", "interval", "further", "deviation", "own_deviation"),
        *raw(rung="name", evidence="basis", tolerance="tolerances"),
        *raw(reproduced="accuracy", published_is="place", seed_floor="floor"),
        *raw(**{key: mean(key) for key in ("parameters", "multiply_adds", "epochs_run")}),
    ]
    caption = f"Test accuracy, {content.run_set.label}"
    return Table("progression", caption, fields, content.systems, attrgetter("slug"))


def _two(first: str, second: str) -> str:
    """Two lines, of which the second one may be missing."""
    return f"{first}\n{second}".removesuffix("\n").removesuffix(f"\n{NONE}")


def _accuracy(s: System) -> list[str]:
    """The accuracy and its interval, or what became of the row."""
    if not s.runs or math.isnan(s.published):
        waiting = s.waiting.partition(",")[0]  # a line of its own says how far it came
        return [percent(s.accuracy) if s.runs else waiting, span(s.interval)]
    return to_limits(s.accuracy, s.interval, s.band, "accuracy")


def _verdict(s: System) -> str:
    return _two(s.verdict, s.assumed if s.verdict == "fails as assumed" else "")


def _interval(s: System) -> str:
    return _two(_accuracy(s)[1], s.basis if s.runs else "")


def _tolerances(s: System) -> str:
    fails, holds = s.tolerances
    if math.isnan(holds):
        return NONE
    return _two(f"holds ≥ {deviation(holds)}", f"fails < {deviation(fails)}" if fails else "")


def _further(s: System) -> str:
    return _two(span(s.further), s.place and f"published {s.place}")


def _spread(s: System) -> str:
    own = "" if math.isnan(s.own_deviation) else f"own {deviation(s.own_deviation)}"
    return _two(deviation(s.deviation), own)


def _training(s: System) -> str:
    most = s.values("epochs_run") or [e for e in [s.params.get("training.epochs")] if e]
    times = s.values("train_seconds")
    took = duration(s.mean("train_seconds"))
    if len({engine(run) for run in s.runs}) > 1 and times:  # whose mean is nobody's
        took = f"{duration(min(times))} to\n{duration(max(times))}"
    return _two(f"{least_to_most(most)} epoch{'s' * ({*most} != {1})}" if most else NONE, took)


def _size(s: System) -> str:
    operations = number(".2f", " M mult-adds")(s.mean("multiply_adds") / 1e6)
    return _two(number()(s.mean("parameters")), operations)
