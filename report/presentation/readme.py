"""README.md and docs/ beside a folder of records follow from what was measured."""

import hashlib
import os
import shlex
import shutil
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from report.analysis import Content, Run, System, of_records, planned
from report.presentation import figures
from report.presentation.formats import to_markdown
from report.presentation.tables import all_tables, commands, results
from report.presentation.tables.message import message, wrong
from report.presentation.tables.numbers import seed_list, seeds
from report.presentation.tables.progression import progression
from resnet import ROOT, UserError, records
from resnet.study import Study, short

FIGURES = Path("docs/figures")
WRITTEN = "<!-- written by  make readme ; changes by hand are lost -->\n"
END = "<!-- end of what is written -->\n"
MARKERS = f"{WRITTEN.strip()}  and  {END.strip()}"


def read(study: Study, results: Path) -> tuple[Content, str]:
    """Reads a folder of records.

    Returns:
        A report's content, without a run if there is no record; and what the records are, as one
        hash.

    Raises:
        UserError: a record is damaged.
    """
    found = records.load_all(results)
    state = hashlib.sha256("".join(r.sha256 for r in found.values()).encode()).hexdigest()
    return (of_records(study, found.values()) if found else planned(study)), state


def section(content: Content, *, picture: bool = True) -> str:
    """Writes what stands between the README's two markers, as Markdown."""
    caption = f"Test accuracy on {content.study.dataset_title}"
    table = replace(progression(content), caption=caption)
    parts = [to_markdown(table, "readme")]
    if content.runs:
        file = (FIGURES / "progression.svg").as_posix()
        drawn = f"![Published and measured test accuracy, rung by rung]({file})\n"
        parts += [*[drawn] * picture, f"{message(content).text}\n"]
    return "\n".join(parts)


def pictures(content: Content) -> dict[str, Figure]:
    """Draws the figures of what was run, by name, but for each rung's own curves."""
    drawn = figures.all_figures(content) if content.runs else {}
    return {name: figure for name, figure in drawn.items() if not name.startswith("curves_")}


def details(content: Content, drawn: Collection[str]) -> str:
    """Writes ``docs/results.md``: rungs, steps, claims with evidence; hardware and commands."""
    made = all_tables(content)
    tables = {k: t for k, t in made.items() if t.items and t.at("results")} if content.runs else {}
    parts = [f"{WRITTEN}\n# Results\n"]
    for name, table in (tables or {"progression": made["progression"]}).items():
        parts.append(to_markdown(table, "results"))
        if name == "progression" and content.runs:
            parts.append(f"{message(content).text} {wrong(content)}\n\n{_engines(content)}\n")
        picture = {"progression": "validation", "steps": "gains"}.get(name, name)
        if picture in drawn:
            caption = picture.replace("_", " ")
            parts.append(f"![{caption}]({FIGURES.name}/{picture}.svg)\n")
    lines = [line for s in content.systems for line in _commands(s, content)]
    for step in content.ablations:
        lines.append(commands.ablate_command(content, step.step.after.short, step.seeds))
    heading = "Each row again, recorded by `.venv/bin/ladder record` once it is finished:\n\n"
    return "\n".join([*parts, heading + "".join(f"    {line}\n" for line in lines)])


def timings(root: Path) -> str:
    """Writes ``docs/benchmarks.md``."""
    text = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    tables = sorted((root / "benchmarks" / "results").glob("*.md"))
    return "\n".join([WRITTEN, text, *(t.read_text(encoding="utf-8") for t in tables)])


def _engines(content: Content) -> str:
    """Which runs are of which backend and device, and whose bits nobody gets again."""

    def rows(runs: Iterable[Run]) -> str:
        by_rung: dict[str, list[Run]] = {}
        for run in runs:
            by_rung.setdefault(short(run.rung), []).append(run)
        return ", ".join(f"{rung} {seeds(own)}" for rung, own in by_rung.items())

    engines: dict[str, list[Run]] = {}
    for run in content.runs:
        engines.setdefault(results.engine(run), []).append(run)
    lines = [f"* {name}: {rows(own)}" for name, own in engines.items()]
    if moved := [run for run in content.runs if "resumed_elsewhere" in run.tags]:
        note = "changed processors on the way (tag `resumed_elsewhere`): neither bits nor times are"
        lines.append(f"* {rows(moved)} {note} one machine's.")
    if free := [run for run in content.runs if not commands.repeatable(run)]:
        note = "were run with XLA free to add in any order: nobody gets their bits again."
        lines.append(f"* {rows(free)} {note}")
    return "\n".join(lines)


def _commands(system: System, content: Content) -> list[str]:
    """What trains a row's runs, a line for each backend; of a row not run, its first seed."""
    data = commands.data_option(content.study, content.runs[0]) if content.runs else []
    of_engine: dict[tuple[str, ...], list[Run]] = {} if system.runs else {(commands.ladder(),): []}
    for run in system.runs:
        of_engine.setdefault((commands.ladder(run), *commands.bits_options(run)), []).append(run)
    own = content.study.options
    return [
        f"{ladder} "
        + shlex.join(
            [
                "run",
                system.short,
                "--seeds",
                seed_list(run.seed for run in runs) or "0",
                *data,
                *options,
                *own,
            ]
        )
        for (ladder, *options), runs in of_engine.items()
    ]


def documents(root: Path, content: Content, drawn: Collection[str]) -> dict[str, str]:
    """Writes the documents as they should be, by path below ``root``; ``drawn`` names the figures.

    Raises:
        UserError: the README is not there, or lacks a marker.
    """
    path = root / "README.md"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; make one with the lines {MARKERS}")
    made = {
        "README.md": _with(path, WRITTEN, section(content)),
        "docs/results.md": details(content, drawn),
    }
    above = ROOT / "README.md"
    marker = f"<!-- written by  make readme  from the records of {content.study.name} -->\n"
    if above != path and marker in above.read_text(encoding="utf-8"):
        table = section(content, picture=False)
        made[os.path.relpath(above, root)] = _with(above, marker, table)
    timed = (root / "benchmarks" / "README.md").exists()
    return made | ({"docs/benchmarks.md": timings(root)} if timed else {})


def _with(path: Path, begin: str, text: str) -> str:
    """A file's text with another one between a marker and the next end."""
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise UserError(f"{path}: lacks the line {(END if found else begin).strip()}")
    return before + begin + text + END + after


def stale(study: Study, results: Path) -> str:
    """Names what is not as :func:`update` would leave it; empty if nothing.

    Args:
        study: whose records they are.
        results: their folder, beside which ``README.md`` and ``docs/`` lie.

    Raises:
        UserError: the README is not there or lacks a marker, or a record is damaged.
    """
    root = results.resolve().parent
    content, state = read(study, results)
    drawn = pictures(content)
    for name, text in documents(root, content, drawn).items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            return name
    there = {
        path.stem: state * (state in path.read_text("utf-8"))
        for path in (root / FIGURES).glob("*.svg")
    }
    wrong = dict.fromkeys(drawn, state).items() ^ there.items()
    return next((f"{FIGURES.as_posix()}/{name}.svg" for name, _ in sorted(wrong)), "")


def update(study: Study, results: Path) -> None:
    """Writes the documents and the figures; arguments and errors as of :func:`stale`."""
    root = results.resolve().parent
    content, state = read(study, results)
    drawn = pictures(content)
    made = documents(root, content, drawn)
    shutil.rmtree(root / FIGURES, ignore_errors=True)
    (root / FIGURES).mkdir(parents=True)
    for name, text in made.items():
        (root / name).write_text(text, encoding="utf-8")
    for name, figure in drawn.items():
        # another matplotlib draws other bytes: what a figure shows is told by what is in it
        svg = figures.to_svg(figure, name.replace("_", " "), f"records {state}")
        (root / FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
