"""Two tables: the gain of each change in a step, and accuracies with one assumed value changed."""

from collections.abc import Callable

from report.analysis import Ablation, Content, Factor, plain
from report.presentation.tables.numbers import percent, points, setting, span
from report.presentation.tables.table import SHORT, Field, Table, raw
from resnet.study import short


def factors(ablation: Ablation) -> Table:
    """Lists the gain of each change that a step makes, computed in three ways."""

    def head(f: Factor) -> str:
        credit = " setting; the study credits it with the gain" * f.credited
        return f"{plain(f.key)}\n{f.key.partition('.')[0]}{credit}"

    def lines(value: float, interval: tuple[float, float]) -> str:
        return f"{points(value)}\n{span(interval, points)}"

    def gain(way: str) -> Callable[[Factor], str]:
        return lambda f: lines(getattr(f, way).gain, getattr(f, way).interval)

    ways = ("leave_one_out", "add_one_in")
    fields = [
        Field("", head, "change", on=SHORT),
        Field("", lambda f: lines(f.value, f.interval), "Shapley value", str, "lines", SHORT),
        *(Field("", gain(way), way.replace("_", "-"), str, "lines", SHORT) for way in ways),
        *raw("key", "credited", "interval", shapley="value", seeds=lambda f: len(f.shapley)),
        *raw(**{way: f"{way}.gain" for way in ways}),
        *raw(**{f"{way}_interval": f"{way}.interval" for way in ways}),
    ]
    before, after = ablation.step.before.short, ablation.step.after.short
    seeds = "seed" + "s" * (len(ablation.seeds) > 1) + " " + ", ".join(map(str, ablation.seeds))
    caption = f"Gain of each change in step {before} → {after} (points, 95 % intervals); {seeds}"
    return Table(f"factors_{ablation.step.after.slug}", caption, fields, ablation.factors)


def alternatives(content: Content) -> Table:
    """Lists the accuracies of rungs in which one assumed value is changed."""
    fields = [
        Field("rung", "step.before.name", "rung", short, on=SHORT),
        Field("key", "", "setting", kind="mono", on=SHORT),
        Field("value", lambda a: setting(a.step.after.params, a.key), "value", on=SHORT),
        Field("reason", "", "reason"),
        Field("test_accuracy", "step.after.accuracy", "test accuracy", percent, "number", SHORT),
        Field("difference", "step.gain", "difference", points, "number", SHORT),
        Field("interval", "step.interval", "95 % interval", lambda i: span(i, points), "number"),
        Field("evidence", "step.basis", "evidence"),
        *raw(run_ids=lambda a: " ".join(run.id for run in a.step.after.runs)),
    ]
    rows = [a for row in content.varied for a in row.run]
    return Table("alternatives", "Accuracies with one assumed value changed", fields, rows)
