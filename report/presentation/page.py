"""The HTML page: one file, nothing fetched, everything escaped."""

import base64
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from report.analysis import Content, state, statistics
from report.presentation import figures
from report.presentation.figures import TEMPLATES
from report.presentation.tables import commands
from report.presentation.tables.numbers import least_to_most, percent, points
from report.presentation.tables.results import published_heading
from report.presentation.tables.table import Table
from resnet.host.shell import count, duration

SYMBOLS = {
    "holds": "✓",
    "fails": "✗",
    "fails as assumed": "✗",
    "undecided": "?",
    "not run": "·",
    "not comparable": "≠",
}
"""The verdicts in the order of every count."""


def counts(verdicts: Iterable[str]) -> dict[str, int]:
    """Counts each verdict, those that there are none of left out."""
    found = Counter(verdicts)
    return {verdict: found[verdict] for verdict in SYMBOLS if found[verdict]}


def count_verdicts(verdicts: Iterable[str]) -> str:
    """Writes ``4 hold, 1 fails, 13 undecided``."""
    found = counts(verdicts).items()
    plural = {verdict: re.sub("^(hold|fail)s", r"\1", verdict) for verdict in SYMBOLS}
    return ", ".join(f"{n} {plural[verdict] if n > 1 else verdict}" for verdict, n in found)


def seeds_each(content: Content) -> str:
    """Says how many seeds a row that was run has: one number, or from the least to the most."""
    return least_to_most([len(s.runs) for s in content.systems if s.runs])


def answer(content: Content) -> str:
    """Says in one sentence whether the ladder holds, rung by rung; "" if none is published."""
    by_verdict: dict[str, list[str]] = {}
    for s in content.rungs:
        if not math.isnan(s.published):
            by_verdict.setdefault(s.verdict, []).append(s.short)
    if not by_verdict:
        return ""
    if "fails" in by_verdict:
        lead = "No"
    elif {*by_verdict} == {"holds"}:
        lead = "Yes"
    else:
        assumed = "fails as assumed" in by_verdict
        lead = "Not as the study was read here" if assumed else "Not decided"
    words = {"holds": "hold", "fails": "fail", "fails as assumed": "fail as assumed"}
    parts = []
    for verdict in SYMBOLS:
        if names := by_verdict.get(verdict):
            several = len(names) > 1
            what = words.get(verdict, f"are {verdict}") if several else verdict
            what = what if several or verdict in words else f"is {verdict}"
            listed = f"{', '.join(names[:-1])} and {names[-1]}" if several else names[0]
            parts.append(f"{listed} {what}")
    return f"{lead}: rung{'s' * (len(parts[0].split(' and ')) > 1)} {'; '.join(parts)}."


def headline(content: Content) -> str:
    """Says the report in one sentence or two."""
    run_set, rungs, verdicts = content.run_set, content.rungs, content.verdicts
    ran = [s for s in rungs if s.runs]
    best = content.best if ran else None
    reached = f", the best with {percent(best.accuracy)}" if best else ""
    measured = f"{len(ran)} of {count(len(rungs), 'rung')} ran{reached}."
    if verdicts and run_set.reservation:
        what = "Machinery check" if run_set.profile != "full" else "Not the study's experiment"
        return (
            f"{what}: {measured} These runs are "
            f"{run_set.reservation}, so that nothing here is held against the study."
        )
    inside = sum(j.verdict == "undecided" and j.inside for j in content.claims)
    claims = count_verdicts([j.verdict for j in content.claims])
    claims = claims.replace("undecided", f"undecided ({inside} with a value inside the bound)")
    seeds = f"{seeds_each(content)} of {content.said.seeds} planned seeds a row"
    sentences = {
        answer(content): bool(verdicts),
        measured: not verdicts,
        f"Interim, with {seeds}.": content.interim and bool(content.runs),
        f"The {len(verdicts)} accuracies, within {100 * content.said.tolerance:g} points of those "
        f"published: {count_verdicts(verdicts)}.": bool(verdicts),
        f"The {len(content.claims)} further claims: {claims}.": bool(content.claims),
    }
    return " ".join(sentence for sentence, said in sentences.items() if sentence and said)


def wrong(content: Content) -> str:
    """Says how many of all verdicts one must expect to be wrong."""
    all_ = len(content.verdicts) + len(content.claims)
    decided = sum(
        v[:5] in ("holds", "fails")
        for v in [*content.verdicts, *(j.verdict for j in content.claims)]
    )
    return (
        f"Each of {all_} verdicts may be wrong with a probability of at most 5 %: once all are "
        f"decided, up to {all_ * statistics.ALPHA:.3g} of them will be, and of the {decided} "
        f"decided here up to {decided * statistics.ALPHA:.3g}."
    )


def missing(content: Content) -> list[str]:
    """Lists what the report cannot show or leaves out, a line each."""
    absent = {s.name: f"{s.name}: {s.waiting}" for s in content.systems if not s.runs}
    going = [
        f"{row.rung}, seed {row.seed} (run {row.run_id[:8]}): {state(row.status)}"
        for row in content.selection.unfinished.itertuples(index=False)
        if row.rung not in absent
    ]
    return [*absent.values(), *going, *content.notes]


def tiles(content: Content) -> list[tuple[str, str, str, dict[str, int]]]:
    """Returns what stands at the top: a name, a figure, what to add, and verdicts to draw."""
    ran = [s for s in content.systems if s.runs]
    published = content.verdicts
    verdicts = counts(published)
    claims = counts([j.verdict for j in content.claims])
    spread = [100 * s.deviation for s in ran if s.deviation == s.deviation]
    noise = f"deviation {min(spread):.2f} to {max(spread):.2f} points" if spread else ""
    interim = content.interim and not content.run_set.reservation
    noise = ("interim, " if noise else "interim") * interim + noise
    devices = dict.fromkeys(run.tags.get("device", "") for run in content.runs)
    if content.run_set.reservation or not published:
        first = ("rungs run", f"{sum(bool(s.runs) for s in content.rungs)} of {len(content.rungs)}")
        second = ("claims measured", f"{sum(j.value == j.value for j in content.claims)}")
    else:
        first = ("reproduced", f"{verdicts.get('holds', 0)} of {len(published)}")
        second = ("claims that hold", f"{claims.get('holds', 0)}")
    return [
        (*first, count_verdicts(published), verdicts),
        (second[0], f"{second[1]} of {len(content.claims)}",
         count_verdicts([j.verdict for j in content.claims]), claims),
        ("seeds a row", seeds_each(content) + f" of {content.said.seeds}" * interim, noise, {}),
        ("training time", duration(content.seconds), ", ".join(devices), {}),
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
        run_set=content.run_set,
        headline=headline(content),
        tiles=tiles(content),
        made=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        others=[(c.run_set, c.notes) for c in content.compared],
        begun=" to ".join(dict.fromkeys(f"{d:%Y-%m-%d}" for d in (min(begun), max(begun))))
        if begun
        else "",
        tables=made,
        svg={name: Markup(figures.inline(svg, name)) for name, (_, svg) in drawn.items()},  # noqa: S704
        readings={name: figures.readings(figure) for name, (figure, _) in drawn.items()},
        mistakes=base64.b64encode(content.mistakes or b"").decode(),
        symbols=SYMBOLS,
        percent=percent,
        missing=missing(content),
        wrong=wrong(content),
        ablate=partial(commands.ablate_command, content),
        points=points,
        published=published_heading(content),
        command=commands.report_command(content),
        ladder=commands.ladder(),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        digest=base64.b64encode(digest).decode(),
    )
