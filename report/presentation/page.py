"""Renders the report as an HTML file that loads no other files."""

import base64
import hashlib
from datetime import UTC, datetime

import jinja2
from markupsafe import Markup

from report.analysis import Content
from report.presentation import figures
from report.presentation.figures import TEMPLATES
from report.presentation.tables import commands, message
from report.presentation.tables.numbers import points
from report.presentation.tables.results import published_heading
from report.presentation.tables.table import Table


def render(content: Content, made: dict[str, Table], drawn: dict[str, str]) -> str:
    """Returns the HTML page. ``made`` maps names to tables; ``drawn`` maps names to SVGs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    days = sorted(f"{run.begun:%Y-%m-%d}" for run in content.runs)
    return environment.get_template("report.html.j2").render(
        content=content,
        run_set=content.run_set,
        answer=message,
        message=message.message(content),
        made=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        begun=" to ".join(dict.fromkeys((days[0], days[-1]))) if days else "",
        tables=made,
        svg={name: Markup(figures.inline(text, name)) for name, text in drawn.items()},  # noqa: S704
        mistakes=base64.b64encode(content.mistakes or b"").decode(),
        commands=commands,
        points=points,
        published=published_heading(content),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
