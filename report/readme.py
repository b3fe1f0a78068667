"""README, docs/results.md and docs/benchmarks.md follow from what was measured.

``python -m report.readme`` writes them from ``results/`` and ``benchmarks/results/``.

The records are restored into a store of their own for the moment, so that tables and figures are
the report's.
"""

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from report import analysis, figures, page, tables
from report.analysis import Content, System
from report.formats import to_markdown
from report.runs import Run
from resnet import UserError, cli, config, records
from resnet.quiet import quiet_start
from resnet.shell import ROOT, address

FIGURES = Path("docs/figures")
WRITTEN = "<!-- written by  make readme ; changes by hand are lost -->\n"
END = "<!-- end of what is written -->\n"


def load(root: Path) -> tuple[Content, str]:
    """Reads the records of ``root/results/``.

    Returns:
        A report's content, without a run if there is no record; and what the records are, as one
        hash.

    Raises:
        UserError: a record is damaged.
    """
    found = records.load_all(root / "results")
    state = hashlib.sha256("".join(r.sha256 for r in found.values()).encode()).hexdigest()
    if not found:
        return analysis.planned(), state
    with quiet_start():  # Keras comes with it, and takes seconds
        from resnet import recording
        from resnet.store import connect
    with tempfile.TemporaryDirectory() as folder:
        store = connect(address(Path(folder) / "mlflow.db"))
        recording.restore(store, found)
        return analysis.load(store.uri, recorded=True), state


def section(content: Content) -> str:
    """What stands between the README's two markers, as Markdown."""
    shown = replace(tables.progression(content), caption="Test accuracy on CIFAR-10")
    parts = [to_markdown(shown, "readme")]
    if content.runs:
        file = (FIGURES / "progression.svg").as_posix()
        picture = f"![Published and reproduced test accuracy, rung by rung]({file})\n"
        parts += [picture, f"{page.headline(content)}\n"]
    return "\n".join(parts)


def pictures(content: Content) -> dict[str, Figure]:
    """The figures of what was run, by name, but for each rung's own curves."""
    drawn = figures.all_figures(content) if content.runs else {}
    return {name: figure for name, figure in drawn.items() if not name.startswith("curves_")}


def details(content: Content, drawn: Collection[str]) -> str:
    """``docs/results.md``: rungs, steps, claims with their evidence; hardware and commands."""
    made = tables.all_tables(content)
    shown = {k: t for k, t in made.items() if t.items and t.at("results")} if content.runs else {}
    parts = [f"{WRITTEN}\n# Results\n"]
    for name, table in (shown or {"progression": made["progression"]}).items():
        parts.append(to_markdown(table, "results"))
        if name == "progression" and content.runs:
            parts.append(f"{page.headline(content)} {page.wrong(content)}\n\n{_engines(content)}\n")
        picture = {"progression": "validation", "steps": "gains"}.get(name, name)
        if picture in drawn:
            told = picture.replace("_", " ")
            parts.append(f"![{told}]({FIGURES.name}/{picture}.svg)\n")
    lines = [line for s in content.systems for line in _commands(s, content)]
    for step in content.apart:
        lines.append(tables.ablate_command(content, step.step.after.short, step.seeds))
    told = (
        "Each row again, recorded by `.venv/bin/python runner.py --record` once it is finished:\n\n"
    )
    return "\n".join([*parts, told + "".join(f"    {line}\n" for line in lines)])


def timings(root: Path) -> str:
    """``docs/benchmarks.md``."""
    text = (root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    tables = sorted((root / "benchmarks" / "results").glob("*.md"))
    return "\n".join([WRITTEN, text, *(t.read_text(encoding="utf-8") for t in tables)])


def _engines(content: Content) -> str:
    """Which runs are of which backend and device, and whose bits nobody gets again."""

    def rows(runs: Iterable[Run]) -> str:
        by_rung: dict[str, list[Run]] = {}
        for run in runs:
            by_rung.setdefault(config.short(run.rung), []).append(run)
        return ", ".join(f"{rung} {tables.seeds(own)}" for rung, own in by_rung.items())

    engines: dict[str, list[Run]] = {}
    for run in content.runs:
        engines.setdefault(tables.engine(run), []).append(run)
    lines = [f"* {name}: {rows(own)}" for name, own in engines.items()]
    if moved := [run for run in content.runs if "resumed_elsewhere" in run.tags]:
        told = "changed processors on the way (tag `resumed_elsewhere`): neither bits nor times are"
        lines.append(f"* {rows(moved)} {told} one machine's.")
    if free := [run for run in content.runs if not tables.repeatable(run)]:
        told = "were run with XLA free to add in any order: nobody gets their bits again."
        lines.append(f"* {rows(free)} {told}")
    return "\n".join(lines)


def _commands(system: System, content: Content) -> list[str]:
    """What trains a row's runs, a line for each backend; of a row not run, its first seed."""
    data = shlex.join(tables.data_option(content.runs[0])) if content.runs else ""
    what = f"runner.py --ladder {system.short} --seeds"
    of_python: dict[tuple[str, str], list[Run]] = {} if system.runs else {(tables.python(), ""): []}
    for run in system.runs:
        options = shlex.join(tables.bits_options(run))
        of_python.setdefault((tables.python(run), options), []).append(run)
    return [
        " ".join(filter(None, (python, what, tables.seed_list(runs) or "0", data, options)))
        for (python, options), runs in of_python.items()
    ]


def documents(root: Path, content: Content, drawn: Collection[str]) -> dict[str, str]:
    """The documents as they should be, by path below ``root``; ``drawn`` names the figures.

    Raises:
        UserError: the README lacks a marker.
    """
    path = root / "README.md"
    before, found, rest = path.read_text(encoding="utf-8").partition(WRITTEN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise UserError(f"{path}: lacks the line {(END if found else WRITTEN).strip()}")
    return {
        "README.md": before + WRITTEN + section(content) + END + after,
        "docs/results.md": details(content, drawn),
        "docs/benchmarks.md": timings(root),
    }


def stale(root: Path) -> str:
    """What is not as :func:`update` would leave it; empty if nothing.

    Args:
        root: the folder with ``README.md``, ``docs/``, ``benchmarks/`` and ``results/``.

    Raises:
        UserError: the README lacks a marker, or a record is damaged.
    """
    content, state = load(root)
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


def update(root: Path) -> None:
    """Writes the documents and the figures; arguments and errors as of :func:`stale`."""
    content, state = load(root)
    drawn = pictures(content)
    shutil.rmtree(root / FIGURES, ignore_errors=True)
    (root / FIGURES).mkdir(parents=True)
    for name, text in documents(root, content, drawn).items():
        (root / name).write_text(text, encoding="utf-8")
    for name, figure in drawn.items():
        # another matplotlib draws other bytes: what a figure shows is told by what is in it
        svg = figures.to_svg(figure, name.replace("_", " "), f"records {state}")
        (root / FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    cli.run(lambda: update(ROOT))
