"""Prints the accuracies and the claims in a terminal."""

from collections.abc import Collection, Sequence
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from report.analysis import ASSUMED, Content, of_records
from report.presentation.formats import to_terminal
from report.presentation.tables import ablations, message, results
from report.presentation.tables.compared import compared, sweep
from report.presentation.tables.numbers import rung
from report.presentation.tables.progression import progression as progression_table
from resnet import records
from resnet.host.messages import count
from resnet.study import Job, Study, short


def show(content: Content, console: Console) -> None:
    """Prints accuracies, claims, ablations and comparisons, then notes and the answer."""
    plain = partial(console.print, highlight=False, markup=False)
    dim = partial(plain, style="dim")
    console.print(progression(content))
    ran = [j for j in content.claims if j.verdict != "not run"]
    if ran:
        console.print(to_terminal(results.judged(content), ran))
    if waiting := len(content.claims) - len(ran):
        dim(f"{count(waiting, 'claim')} not run")
    for table in parts(content, [system.name for system in content.systems]):
        console.print(table)
    for i, other in enumerate(content.compared):
        against = compared(content, i)
        console.print(to_terminal(against))
        for text, rungs in against.frame.groupby("different_settings", sort=False)["rung"]:
            if text:
                dim(f"rows with different settings ({', '.join(map(short, rungs))}): {text}")
        for note in other.notes:
            dim(f"compared set: {note}")
    reasons = [(s, message.why(content, s)) for s in content.systems]
    notes = [f"{rung(s.name)} {s.verdict}: {reason}" for s, reason in reasons if reason]
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
        plain(f"continue with:  {command}", soft_wrap=True)


def trained(content: Content, due: Sequence[Job], console: Console) -> None:
    """Prints the results of trained jobs.

    For a sweep, ``content`` has the runs with the first combination of swept values, and
    ``content.compared`` has the runs with the other combinations.
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
    if not content.run_set.reservation:
        console.print(message.message(content).lead, markup=False, highlight=False)


def progression(content: Content, named: Collection[str] = ()) -> Table:
    """Returns the table of accuracies; ``named`` limits it to named rows and rows with runs."""
    systems = [s for s in content.systems if not named or s.name in named or s.runs]
    return to_terminal(progression_table(content), systems)


def parts(content: Content, named: Collection[str]) -> list[Table]:
    """Returns tables of single changes and of alternative values for the ``named`` rungs."""
    tables = [
        to_terminal(ablations.factors(ablation))
        for ablation in content.ablations
        if ablation.seeds and ablation.step.after.name in named
    ]
    made = ablations.alternatives(content)
    varied = [row for row in made.items if row.step.before.name in named]
    return [*tables, to_terminal(made, varied)] if varied else tables


def decidable(study: Study, due: Sequence[Job]) -> Table | None:
    """Returns a table that shows how many seeds the planned jobs' rows need for a verdict.

    The numbers are estimated from the study's records. Returns None if there are no suitable
    records, if the profile is not ``full``, or if settings are modified.
    """
    if due[0].profile != "full" or due[0].modified:
        return None
    names = {job.experiment.name for job in due}
    # records on other images say nothing about these jobs
    own = [r for r in records.load_all(study.results).values() if r.key.group == study.dataset]
    if not own:
        return None
    made = results.seeds(of_records(study, own))
    return to_terminal(made, [prospect for prospect in made.items if names & {*prospect.rungs}])


def _reservation(content: Content, console: Console) -> None:
    if content.run_set.reservation:
        console.print(f"[yellow]† these runs are {escape(content.run_set.reservation)}[/]")
