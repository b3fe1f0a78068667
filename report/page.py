"""The HTML page: one file, nothing fetched, everything escaped."""

import base64
import re
from collections import Counter
from pathlib import Path

import jinja2

from report import tables
from report.analysis import Content
from report.selection import state
from report.tables import Chip, Ids, Table

_SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?"}


def _image(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _numeric(cell: str) -> bool:
    """Whether a cell is aligned as a number is."""
    return (
        bool(re.match(r"[<+-]?\s?\d[\d.,]*( |$)", cell))
        and len(cell) < 24
        and ", " not in cell
        and "\n" not in cell
    )


def verdict(content: Content) -> str:
    """The report in one sentence or two."""
    rungs = content.rungs
    measured = [s for s in rungs if s.accuracies]
    verdicts = Counter(s.verdict for s in measured)
    claims = Counter(j.verdict for j in content.claims)
    tolerance = f"{100 * content.study.tolerance:g} points"
    if not measured:
        return f"None of the {len(rungs)} rungs has a finished run yet, so nothing is decided."
    first = (
        f"Of {len(rungs)} rungs, {len(measured)} "
        f"{'has' if len(measured) == 1 else 'have'} been run: {verdicts['holds']} reproduced "
        f"within {tolerance} of the published accuracy, {verdicts['fails']} not, "
        f"{verdicts['undecided']} undecided."
    )
    second = (
        f"Of {len(content.claims)} claims, {claims['holds']} hold, {claims['fails']} fail, "
        f"{claims['undecided']} are undecided."
    )
    return f"{first} {second}"


def missing(content: Content) -> list[str]:
    """What the report cannot show or leaves out, one line each."""
    absent = [f"{s.name}: {s.waiting}" for s in content.systems if not s.runs]
    listed = {s.name for s in content.systems if not s.runs}
    going = [
        f"{row.rung}, seed {row.seed}: {state(row.status)}"
        for row in content.selection.unfinished.itertuples(index=False)
        if row.rung not in listed
    ]
    return [*absent, *going, *content.notes]


def render(
    content: Content, made: dict[str, Table], figures: dict[str, Path], mistakes: bytes | None
) -> str:
    """Renders the page.

    Args:
        content: what to say.
        made: :func:`report.tables.all_tables` of it.
        figures: SVG files by name.
        mistakes: the picture (PNG) of the most confident mistakes, if there is one.

    Returns:
        HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {
        "chip": lambda cell: isinstance(cell, Chip),
        "ids": lambda cell: isinstance(cell, Ids),
        "numeric": _numeric,
    }
    environment.filters["percent"] = tables.percent
    return environment.get_template("report.html.j2").render(
        content=content,
        shown=content.selection.shown,
        verdict=verdict(content),
        tables=made,
        images={name: _image(path.read_bytes(), "svg+xml") for name, path in figures.items()},
        mistakes=_image(mistakes, "png") if mistakes else None,
        symbols=_SYMBOLS,
        missing=missing(content),
        command=tables.report_command(content),
    )
