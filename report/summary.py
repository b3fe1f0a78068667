"""The progression and the claims for a terminal."""

import math
from collections.abc import Collection

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from report import page, tables
from report.analysis import Content, System
from resnet import config

_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def show(content: Content, console: Console) -> None:
    """Prints the set shown, the progression, the claims, and what is missing.

    Args:
        content: from :func:`report.analysis.load`.
        console: where.
    """
    console.print(progression(content))
    claims = Table(title="The study's claims, judged", box=box.SIMPLE_HEAD)
    for heading in ("claim", "the study says", "verdict", "measured", "holds if"):
        claims.add_column(heading)
    for j in content.claims:
        claims.add_row(
            escape(j.claim.id),
            escape(j.claim.text),
            _verdict(j.verdict),
            escape(tables.measured(j.value, j.unit)),
            escape(tables.bound(j.claim.bound, j.unit)),
        )
    console.print(claims)
    for note in page.missing(content):
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
    reservation(content, console)
    console.print(page.verdict(content), highlight=False)


def progression(content: Content, named: Collection[str] = ()) -> Table:
    """Published and reproduced accuracy rung by rung, with the gain of each step.

    Args:
        content: from :func:`report.analysis.load`.
        named: show only these systems, and those that have runs; all if empty.

    Returns:
        The table.
    """
    mark = " †" if content.selection.shown.reservation else ""
    title = escape(f"Test accuracy, {content.selection.shown.label}")
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("rung")
    for heading in (f"published{mark}", "reproduced", "step gain", "epochs", "time"):
        table.add_column(heading, justify="right")
    if not mark:  # what was published about other data can neither hold nor fail here
        table.add_column("verdict")
    gains = {step.after.name: step.after.accuracy - step.before.accuracy for step in content.steps}
    for system in content.systems:
        if named and system.name not in named and not system.runs:
            continue
        cells = [
            escape(f"{config.rung_number(system.name) or '':1} {system.title}"),
            tables.percent(system.published),
            _reproduced(system),
            tables.points(gains.get(system.name, math.nan)),
            tables.whole(system.epochs),
            tables.duration(system.mean("train_seconds")),
            _verdict(system.verdict) if system.runs else "",
        ]
        table.add_row(*cells[: len(table.columns)])
    return table


def reservation(content: Content, console: Console) -> None:
    """Says it where the runs are not what the study published about."""
    if content.selection.shown.reservation:
        console.print(f"[yellow]† these runs are {escape(content.selection.shown.reservation)}[/]")


def _reproduced(system: System) -> str:
    if not system.runs:
        return escape(system.waiting)
    seeds = f" ({len(system.accuracies)} seeds)" if len(system.accuracies) > 1 else ""
    return f"{tables.percent(system.accuracy)}{seeds}"


def _verdict(verdict: str) -> str:
    return f"[{_COLOURS[verdict]}]{verdict}[/]"
