"""The progression and the claims for a terminal."""

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from report.analysis import ASSUMED, Content, of_records
from report.presentation.formats import to_terminal
from report.presentation.tables import message
from report.presentation.tables.ablations import factors, ranges
from report.presentation.tables.compared import compared, sweep
from report.presentation.tables.progression import progression as progression_table
from report.presentation.tables.results import judged
from report.presentation.tables.results import seeds as seeds_table
from resnet import records
from resnet.host.messages import count
from resnet.study import Job, Study, short


def show(content: Content, console: Console) -> None:
    """Prints the progression, the claims, what steps are made of, and what is missing."""
    console.print(progression(content))
    ran = [j for j in content.claims if j.verdict != "not run"]
    if ran:
        console.print(to_terminal(judged(content), ran))
    if waiting := len(content.claims) - len(ran):
        console.print(f"[dim]{count(waiting, 'claim')} not run[/dim]", highlight=False)
    for part in parts(content, [system.name for system in content.systems]):
        console.print(part)
    for i, other in enumerate(content.compared):
        table = compared(content, i)
        console.print(to_terminal(table))
        settings = table.frame.groupby("different_settings", sort=False)["rung"]
        changed = [f"{', '.join(map(short, of))}: {text}" for text, of in settings if text]
        for line in (*changed, *(f"compared: {note}" for note in other.notes)):
            console.print(f"[dim]{escape(line)}[/dim]", highlight=False)
    for s in content.systems:
        if text := message.why(content, s):
            line = f"{s.short} {s.verdict}: {text}"
            console.print(f"[dim]{escape(line)}[/dim]", highlight=False)
    for note in message.missing(content):
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
    verdicts = [*content.verdicts, *(j.verdict for j in content.claims)]
    if ASSUMED in verdicts:
        console.print("[dim]* under our assumptions[/dim]", highlight=False)
    reservation(content, console)
    told = message.message(content)
    console.print(told.text, highlight=False, markup=False)
    console.print(message.facts(content), highlight=False, markup=False)
    for command in told.go_on:
        console.print(f"go on with:  {command}", highlight=False, markup=False, soft_wrap=True)


def trained(content: Content, due: Sequence[Job], console: Console) -> None:
    """Prints what a command ends with: the progression, or the values of a sweep.

    Args:
        content: of the jobs; those of a sweep's further values are compared with it.
        due: what was asked for.
        console: where to print.
    """
    names = {job.experiment.name for job in due}
    if content.compared:
        table = sweep(content, {job.modified: job.varied for job in due}, names)
        console.print(to_terminal(table))
        return
    console.print(progression(content, names))
    for part in parts(content, {name.partition("~")[0] for name in names if "~" in name}):
        console.print(part)
    reservation(content, console)


def progression(content: Content, named: Collection[str] = ()) -> Table:
    """Makes the progression, of the systems named and those that have runs; of all if none is."""
    systems = [s for s in content.systems if not named or s.name in named or s.runs]
    return to_terminal(progression_table(content), systems)


def parts(content: Content, named: Collection[str]) -> list[Table]:
    """Makes tables of what the changes of the rungs named earned, and of their ranges."""
    steps = content.ablations
    tables = [factors(step) for step in steps if step.seeds and step.step.after.name in named]
    made = ranges(content)
    varied = [row for row in made.items if row.system.name in named]
    return [*map(to_terminal, tables), *([to_terminal(made, varied)] if varied else [])]


def decidable(study: Study, due: Sequence[Job]) -> Table | None:
    """Makes the table of the seeds that planned rungs take, by the study's records.

    Args:
        study: the study of the rungs.
        due: the planned jobs.

    Returns:
        None without records, for other profiles than the full one, and for changed settings.
    """
    if due[0].profile != "full" or due[0].modified:
        return None
    names = {job.experiment.name for job in due}
    every = records.load_all(study.results).values()
    # records on other images say nothing about these
    if not (found := [record for record in every if record.key.group == study.dataset]):
        return None
    made = seeds_table(of_records(study, found))
    return to_terminal(made, [prospect for prospect in made.items if names & {*prospect.rungs}])


def reservation(content: Content, console: Console) -> None:
    """Says it where the runs are not what the study published about."""
    if content.run_set.reservation:
        console.print(f"[yellow]† these runs are {escape(content.run_set.reservation)}[/]")
