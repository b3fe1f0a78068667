"""Tables that compare sets of runs."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from report.analysis import Content, Step, System
from report.presentation.tables.numbers import percent, seeds, span
from report.presentation.tables.results import as_list, paired_fields
from report.presentation.tables.table import Field, Table, raw
from resnet.host.messages import duration
from resnet.study import differences


def compared(content: Content, i: int) -> Table:
    """Compares the shown runs, rung by rung, with the runs of ``content.compared[i]``."""
    other = content.compared[i]
    labels = [c.run_set.label for c in (content, other)]
    steps = content.compare(other)

    def accuracy(s: System) -> str:
        return f"{percent(s.accuracy)}\n{seeds(s.runs)}" if s.runs else s.waiting

    def changes(s: Step) -> str:
        both = s.before.runs and s.after.runs
        return "; ".join(differences(s.before.params, s.after.params)) if both else ""

    fields = [
        Field("", "before.heading", "rung"),
        Field("", lambda s: f"{s.before.heading}\n{s.basis}", "rung", on="terminal"),
        Field("", lambda s: accuracy(s.before), "accuracy, shown", kind="lines"),
        Field("", lambda s: accuracy(s.after), "accuracy, compared", kind="lines"),
        *raw(rung="before.name", shown_set=lambda s: labels[0], compared_set=lambda s: labels[1]),
        Field("shown", "before.accuracy", "shown", percent, "number", "terminal"),
        Field("compared", "after.accuracy", "compared", percent, "number", "terminal"),
        *paired_fields("difference", steps),
        Field("different_settings", changes, "different settings", as_list, "fold"),
        *raw(shown_runs=lambda s: " ".join(run.id for run in s.before.runs)),
        *raw(compared_runs=lambda s: " ".join(run.id for run in s.after.runs)),
    ]
    caption = f"Shown: {labels[0]}. Compared: {labels[1]}"
    return Table(f"compared_{i + 1}", caption, fields, steps)


def sweep(content: Content, varied: Mapping[str, str], named: Collection[str]) -> Table:
    """Lists accuracies, rung by rung, for each value of a swept setting.

    ``varied`` maps each ``RunSet.modified`` to a text with the swept values, such as
    ``batch_size=16``. Rungs in ``named`` are listed even without a run.
    """
    rows = [
        replace(system, title=f"{system.title} · {varied[one.run_set.modified]}")
        for one in (content, *content.compared)
        for system in one.systems
        if system.runs or system.name in named
    ]
    names = [system.name for system in rows]

    fields = [
        Field("", "heading", "rung"),
        Field("", lambda s: percent(s.mean("best_val_accuracy")), "validation", kind="number"),
        Field("", lambda s: percent(s.accuracy) if s.runs else s.waiting, "test", kind="number"),
        Field("", "interval", "95 % interval", span, "number"),
        Field("", lambda s: len(s.runs), "seeds", kind="number"),
        Field("", lambda s: duration(s.mean("train_seconds")), "time", kind="number"),
    ]
    fields = [field._replace(on="terminal") for field in fields]
    caption = f"Accuracy for each swept value, {replace(content.run_set, modified='').label}"
    return Table("sweep", caption, fields, sorted(rows, key=lambda s: names.index(s.name)))
