"""The HTML page: one file, nothing fetched, everything escaped."""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from report import attribution, figures, tables
from report.analysis import Content
from report.figures import TEMPLATES
from report.selection import state
from report.tables import Table

SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?", "not run": "·", "not comparable": "≠"}
"""The verdicts in the order of every count."""


def counts(verdicts: Iterable[str]) -> dict[str, int]:
    """How many there are of each verdict, those that there are none of left out."""
    found = Counter(verdicts)
    return {verdict: found[verdict] for verdict in SYMBOLS if found[verdict]}


def told(verdicts: Iterable[str]) -> str:
    """``4 hold, 1 fails, 13 undecided``."""
    found = counts(verdicts).items()
    return ", ".join(f"{n} {verdict.removesuffix('s' * (n > 1))}" for verdict, n in found)


def accuracies(content: Content) -> list[str]:
    """The verdict on each accuracy that the study gives, the baseline's too."""
    return [s.verdict for s in content.systems if s.published == s.published]


def seeds_each(content: Content) -> str:
    """How many seeds a row that was run has: one number, or from the least to the most."""
    return tables.whole([len(s.runs) for s in content.systems if s.runs])


def headline(content: Content) -> str:
    """The report in one sentence or two."""
    shown, rungs = content.selection.shown, content.rungs
    ran = [s for s in rungs if s.runs]
    if shown.reservation:
        what = "Machinery check" if shown.profile != "full" else "Not the study's experiment"
        best = content.best if ran else None
        reached = f", the best with {tables.percent(best.accuracy)}" if best else ""
        return (
            f"{what}: {len(ran)} of {len(rungs)} rungs ran{reached}. These runs are "
            f"{shown.reservation}, so that nothing here is held against the study."
        )
    verdicts = accuracies(content)
    inside = sum(j.verdict == "undecided" and j.inside for j in content.claims)
    claims = told([j.verdict for j in content.claims])
    claims = claims.replace("undecided", f"undecided ({inside} with a value inside the bound)")
    seeds = seeds_each(content)
    each = f" from {seeds} seed{'s' * (seeds != '1')} each," if content.runs else ""
    return (
        f"The {len(verdicts)} accuracies,{each} within {100 * content.study.tolerance:g} points of "
        f"those published: {told(verdicts)}. The {len(content.claims)} further claims: {claims}."
    )


def missing(content: Content) -> list[str]:
    """What the report cannot show or leaves out, one line each."""
    absent = {s.name: f"{s.name}: {s.waiting}" for s in content.systems if not s.runs}
    going = [
        f"{row.rung}, seed {row.seed} (run {row.run_id[:8]}): {state(row.status)}"
        for row in content.selection.unfinished.itertuples(index=False)
        if row.rung not in absent
    ]
    return [*absent.values(), *going, *content.notes]


def tiles(content: Content) -> list[tuple[str, str, str, dict[str, int]]]:
    """What stands at the top: a name, a figure, what to add, and verdicts to draw."""
    ran = [s for s in content.systems if s.runs]
    published = accuracies(content)
    verdicts = counts(published)
    claims = counts([j.verdict for j in content.claims])
    spread = [s.deviation for s in ran if s.deviation == s.deviation]
    floor = [s.floor for s in ran if s.floor == s.floor]
    noise = f"deviation {tables.deviation(max(spread))} points at most" if spread else ""
    noise = noise or (f"floor up to {tables.deviation(max(floor))} points" if floor else "")
    devices = dict.fromkeys(run.tags.get("device", "") for run in content.runs)
    if content.selection.shown.reservation:
        first = ("rungs run", f"{sum(bool(s.runs) for s in content.rungs)} of {len(content.rungs)}")
        second = ("claims measured", f"{sum(j.value == j.value for j in content.claims)}")
    else:
        first = ("reproduced", f"{verdicts.get('holds', 0)} of {len(published)}")
        second = ("claims that hold", f"{claims.get('holds', 0)}")
    return [
        (*first, told(published), verdicts),
        (second[0], f"{second[1]} of {len(content.claims)}",
         told([j.verdict for j in content.claims]), claims),
        ("seeds a rung", seeds_each(content), noise, {}),
        ("training time", tables.duration(content.seconds), ", ".join(devices), {}),
    ]  # fmt: skip


def render(content: Content, made: dict[str, Table], drawn: dict[str, tuple[Figure, str]]) -> str:
    """Renders the page.

    Args:
        content: what to say.
        made: :func:`report.tables.all_tables` of it.
        drawn: by name, figures that were drawn and their SVG.

    Returns:
        HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    begun = [run.begun for run in content.runs]
    return environment.get_template("report.html.j2").render(
        content=content,
        shown=content.selection.shown,
        headline=headline(content),
        tiles=tiles(content),
        made=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        others=[(c.selection.shown, c.notes) for c in content.compared],
        begun=" to ".join(dict.fromkeys(f"{d:%Y-%m-%d}" for d in (min(begun), max(begun))))
        if begun
        else "",
        tables=made,
        svg={name: Markup(figures.inline(svg, name)) for name, (_, svg) in drawn.items()},  # noqa: S704
        readings={name: figures.readings(figure) for name, (figure, _) in drawn.items()},
        mistakes=base64.b64encode(content.mistakes or b"").decode(),
        symbols=SYMBOLS,
        percent=tables.percent,
        missing=missing(content),
        apart=attribution.apart(content),
        ablate=partial(tables.ablate_command, content),
        points=tables.points,
        published=tables.published_heading(content),
        command=tables.report_command(content),
        python=tables.python(),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        digest=base64.b64encode(digest).decode(),
    )
