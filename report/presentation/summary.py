"""Prints the progression and the claims in a terminal."""

from collections.abc import Collection, Sequence
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from report.analysis import ASSUMED, Content, of_records
from report.presentation.formats import to_terminal
from report.presentation.tables import message
from report.presentation.tables.ablations import alternatives, factors
from report.presentation.tables.compared import compared, sweep
from report.presentation.tables.progression import progression as progression_table
from report.presentation.tables.results import judged
from report.presentation.tables.results import seeds as seeds_table
from resnet import records
from resnet.host.messages import count
from resnet.study import Job, Study, short


def show(content: Content, console: Console) -> None:
    """Prints the progression, the claims, what steps are made of, and what is missing."""
    plain = partial(console.print, highlight=False, markup=False)
    dim = partial(plain, style="dim")
    console.print(progression(content))
    ran = [j for j in content.claims if j.verdict != "not run"]
    if ran:
        console.print(to_terminal(judged(content), ran))
    if waiting := len(content.claims) - len(ran):
        dim(f"{count(waiting, 'claim')} not run")
    for table in parts(content, [system.name for system in content.systems]):
        console.print(table)
    for i, other in enumerate(content.compared):
        against = compared(content, i)
        console.print(to_terminal(against))
        settings = against.frame.groupby("different_settings", sort=False)["rung"]
        changed = [f"{', '.join(map(short, rungs))}: {text}" for text, rungs in settings if text]
        for line in (*changed, *(f"compared: {note}" for note in other.notes)):
            dim(line)
    reasons = [(s, message.why(content, s)) for s in content.systems]
    notes = [f"{s.short} {s.verdict}: {reason}" for s, reason in reasons if reason]
    notes += message.missing(content)
    if ASSUMED in [*content.verdicts, *(j.verdict for j in content.claims)]:
        notes.append("* under our assumptions")
    for line in notes:
        dim(line)
    _reservation(content, console)
    answer = message.message(content)
    plain(answer.text)
    plain(message.facts(content))
    for command in answer.go_on:
        plain(f"go on with:  {command}", soft_wrap=True)


def trained(content: Content, due: Sequence[Job], console: Console) -> None:
    """Prints what a command ends with: the progression, or the values of a sweep.

    Args:
        content: of the jobs; the jobs of a sweep's further values are compared with it.
        due: the jobs that were asked for.
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
    _reservation(content, console)


def progression(content: Content, named: Collection[str] = ()) -> Table:
    """Makes the progression of the systems named and of those that have runs; by default of all."""
    systems = [s for s in content.systems if not named or s.name in named or s.runs]
    return to_terminal(progression_table(content), systems)


def parts(content: Content, named: Collection[str]) -> list[Table]:
    """Makes tables of the factors of the rungs named, and of alternatives to their assumptions."""
    steps = content.ablations
    tables = [factors(step) for step in steps if step.seeds and step.step.after.name in named]
    made = alternatives(content)
    varied = [row for row in made.items if row.step.before.name in named]
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


def _reservation(content: Content, console: Console) -> None:
    if content.run_set.reservation:
        console.print(f"[yellow]† these runs are {escape(content.run_set.reservation)}[/]")
