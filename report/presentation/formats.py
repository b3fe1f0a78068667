"""Writes tables as CSV, Markdown and LaTeX, and for a terminal."""

import html
import re
from pathlib import Path

import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from report.presentation.tables.table import Table
from resnet.records import guarded

_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def to_markdown(table: Table, place: str = "page") -> str:
    """Returns the table as GitHub Markdown, with all special characters escaped."""

    def cell(text: str) -> str:
        literal = re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(text, quote=False))
        return "<br>".join(literal.splitlines())

    heading, *rows = (list(map(cell, row)) for row in table.texts(place))
    lines = ["| " + " | ".join(row) + " |" for row in (heading, ["---"] * len(heading), *rows)]
    return f"**{cell(table.caption)}**\n\n" + "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """Returns the table as a LaTeX tabular, which needs the packages booktabs and fontenc (T1)."""
    heading, *rows = table.texts()
    # pandas fails if Python normalizes two headings to one identifier; final spaces prevent this
    frame = pd.DataFrame(rows, columns=[f"{name} " for name in heading])
    text = frame.replace("\n", "; ", regex=True).to_latex(index=False, escape=True)
    # after a line break, LaTeX would read a bracket as the start of an argument
    return re.sub(r"^\[", "{[}", text, flags=re.MULTILINE)


def to_terminal(table: Table, items: list | None = None) -> RichTable:
    """Returns the table for a terminal; ``items`` are the rows to show, by default all."""
    made = RichTable(
        title=f"\n{escape(table.caption)}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,  # otherwise the longest claim does not fit into 80 columns
    )
    fields = table.at("terminal")
    for f in fields:  # only the first column may take several lines
        made.add_column(
            f.heading,
            justify="right" if f.kind == "number" else "left",
            no_wrap=f is not fields[0],
            overflow="fold",
        )
    for item in table.items if items is None else items:
        cells = [escape(f.form(f.value(item))) for f in fields]
        made.add_row(*(f"[{_COLOURS.get(c.split()[0], 'dim')}]{c}[/]" if f.kind == "verdict" else c
                       for f, c in zip(fields, cells, strict=True)))  # fmt: skip
    return made


def write(tables: dict[str, Table], folder: Path) -> None:
    """Writes each non-empty table as CSV; if the page shows it, also as Markdown and LaTeX."""
    folder.mkdir()
    for name, table in tables.items():
        if table.items:
            frame = table.frame.map(guarded).rename(columns=guarded)
            # Excel recognises UTF-8 only by its byte order mark
            frame.to_csv(folder / f"{name}.csv", index=False, encoding="utf-8-sig")
        if table.items and table.at("page"):
            (folder / f"{name}.md").write_text(to_markdown(table), encoding="utf-8")
            (folder / f"{name}.tex").write_text(to_latex(table), encoding="utf-8")
