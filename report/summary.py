"""The progression and the claims for a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from report import page, tables
from report.analysis import Content
from report.tables import Chip, Table

_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}
_PROGRESSION = ("rung", "reproduced", "95 % interval", "difference", "verdict", "training")
_CLAIMS = ("claim", "the study says", "verdict", "measured", "holds if", "evidence")


def show(content: Content, console: Console) -> None:
    """Prints the set shown, the progression, the claims, and what is missing.

    Args:
        content: from :func:`report.analysis.load`.
        console: where.
    """
    shown = content.selection.shown
    published = tables.published_heading(content)
    columns = (_PROGRESSION[0], published, *_PROGRESSION[1:])
    console.print(f"[bold]{escape(shown.label)}[/bold]", highlight=False)
    console.print(_rich(tables.progression(content), columns))
    console.print(_rich(tables.judged(content), _CLAIMS))
    if shown.reservation:
        console.print(f"[yellow]† these runs are {escape(shown.reservation)}[/yellow]")
    for note in page.missing(content):
        console.print(f"[dim]{escape(note)}[/dim]", highlight=False)
    console.print(page.verdict(content), highlight=False)


def _rich(table: Table, columns: tuple[str, ...]) -> RichTable:
    result = RichTable(title=escape(table.caption))
    for column in columns:
        result.add_column(escape(column), overflow="fold")
    for row in table.shown[list(columns)].itertuples(index=False):
        result.add_row(
            *(
                f"[{_COLOURS[cell]}]{cell}[/]" if isinstance(cell, Chip) else escape(cell)
                for cell in row
            )
        )
    return result
