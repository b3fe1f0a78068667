"""Tables that compare another set of runs with the one shown."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from report.analysis import Content, Step, System
from report.presentation.tables.numbers import NONE, percent, seeds, span
from report.presentation.tables.provenance import environment
from report.presentation.tables.results import as_list, paired_fields
from report.presentation.tables.table import Field, Table, plain_table, raw
from resnet.host.messages import duration
from resnet.study import differences


def compared(content: Content, i: int) -> Table:
    """Compares the set shown and the i-th compared set, rung by rung."""
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
    """Lists the values of a sweep with their accuracies, rung by rung.

    Args:
        content: of the first value; the contents of the other values are compared with it.
        varied: each value in short, by ``modified``.
        named: names of the rungs to list even without a run.
    """
    rows = [
        replace(system, title=f"{system.title} · {varied[one.run_set.modified]}")
        for one in (content, *content.compared)
        for system in one.systems
        if system.runs or system.name in named
    ]
    names = [system.name for system in rows]

    def accuracy(s: System) -> str:
        return percent(s.accuracy) if s.runs else s.waiting.partition(",")[0]

    fields = [
        Field("", "heading", "rung"),
        Field("", lambda s: percent(s.mean("best_val_accuracy")), "validation", kind="number"),
        Field("", accuracy, "test", kind="number"),
        Field("", "interval", "95 % interval", span, "number"),
        Field("", lambda s: len(s.runs), "seeds", kind="number"),
        Field("", lambda s: duration(s.mean("train_seconds")), "time", kind="number"),
    ]
    fields = [field._replace(on="terminal") for field in fields]
    caption = f"Accuracy by value, {replace(content.run_set, modified='').label}"
    return Table("sweep", caption, fields, sorted(rows, key=lambda s: names.index(s.name)))


def unlike(content: Content, i: int) -> Table:
    """Lists the data, software and hardware in which the i-th compared set differs."""
    shown, other = (
        {"set": c.run_set.label, **dict(environment(c).items)}
        for c in (content, content.compared[i])
    )
    values = [(what, shown.get(what, NONE), other.get(what, NONE)) for what in shown | other]
    columns = {"what": "what", "shown": "shown", "compared": "compared"}
    rows = [row for row in values if row[1] != row[2]]
    caption = f"In what {other['set']} differs"
    return plain_table(f"compared_{i + 1}_sets", caption, columns, rows)
