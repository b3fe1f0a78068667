"""Another set of runs beside the one shown, which is of no other table."""

from report.analysis import Content, Step, System
from report.presentation.tables.numbers import NONE, percent, seeds
from report.presentation.tables.provenance import environment
from report.presentation.tables.results import as_list, paired_fields
from report.presentation.tables.table import Field, Table, plain_table, raw
from resnet.study import differences


def compared(content: Content, i: int) -> Table:
    """Sets the set shown and the i-th compared side by side, rung by rung."""
    other = content.compared[i]
    labels = [c.run_set.label for c in (content, other)]
    steps = content.beside(other)

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


def unlike(content: Content, i: int) -> Table:
    """Lists in what data, software and hardware the set shown and the i-th compared differ."""
    shown, other = (
        {"set": c.run_set.label, **dict(environment(c).items)}
        for c in (content, content.compared[i])
    )
    values = [(what, shown.get(what, NONE), other.get(what, NONE)) for what in shown | other]
    columns = {"what": "what", "shown": "shown", "compared": "compared"}
    rows = [row for row in values if row[1] != row[2]]
    caption = f"In what {other['set']} differs"
    return plain_table(f"compared_{i + 1}_sets", caption, columns, rows)
