"""The progression and the claims for a terminal."""

from collections.abc import Collection

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from report import page, tables
from report.analysis import Content
from report.formats import to_terminal
from resnet import config


def show(content: Content, console: Console) -> None:
    """Prints the progression, the claims, what steps are made of, and what is missing."""
    console.print(progression(content))
    console.print(to_terminal(tables.judged(content)))
    for part in parts(content, [system.name for system in content.systems]):
        console.print(part)
    for i, other in enumerate(content.compared):
        table = tables.compared(content, i)
        console.print(to_terminal(table))
        settings = table.frame.groupby("different_settings", sort=False)["rung"]
        told = [f"{', '.join(map(config.short, of))}: {text}" for text, of in settings if text]
        for line in (*told, *(f"compared: {note}" for note in other.notes)):
            console.print(f"[dim]{escape(line)}[/dim]", highlight=False)
    for s in content.systems:
        if s.verdict == "fails as assumed":
            console.print(f"[dim]{escape(s.name)}: {escape(s.assumed)}[/dim]", highlight=False)
    for note in page.missing(content):
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
    reservation(content, console)
    console.print(page.headline(content), highlight=False, markup=False)


def progression(content: Content, named: Collection[str] = ()) -> Table:
    """The progression, of the systems named and those that have runs; of all if none is named."""
    shown = [s for s in content.systems if not named or s.name in named or s.runs]
    return to_terminal(tables.progression(content), shown)


def parts(content: Content, named: Collection[str]) -> list[Table]:
    """What the changes of the rungs named earned, and their ranges over what was assumed."""
    steps = content.apart
    shown = [tables.factors(step) for step in steps if step.seeds and step.step.after.name in named]
    ranges = tables.ranges(content)
    varied = [row for row in ranges.items if row.system.name in named]
    return [*map(to_terminal, shown), *([to_terminal(ranges, varied)] if varied else [])]


def reservation(content: Content, console: Console) -> None:
    """Says it where the runs are not what the study published about."""
    if content.selection.shown.reservation:
        console.print(f"[yellow]† these runs are {escape(content.selection.shown.reservation)}[/]")
