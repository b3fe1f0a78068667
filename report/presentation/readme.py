"""Writes the results of recorded runs into README.md and docs/."""

import os
import shlex
import shutil
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from report.analysis import Content, Run, System, of_records
from report.presentation import figures
from report.presentation.formats import to_markdown
from report.presentation.tables import all_tables, commands, results
from report.presentation.tables.message import message, wrong
from report.presentation.tables.numbers import rung, seed_list, seeds
from report.presentation.tables.progression import progression
from resnet import ROOT, UserError, records
from resnet.study import Study

FIGURES = Path("docs/figures")
WRITTEN = "<!-- written by  make readme ; changes by hand are lost -->\n"
END = "<!-- end of what is written -->\n"


def update(study: Study, results: Path) -> None:
    """Writes the results into ``README.md`` and ``docs/``, which lie beside the folder ``results``.

    Raises:
        UserError: ``results`` holds no records, a record is damaged, or a README lacks a marker.
    """
    root = results.resolve().parent
    found = records.load_all(results)
    if not found:
        raise UserError(f"{results}: holds no records; write some with  ladder record")
    content = of_records(study, found.values())
    # only the HTML report shows the curves of each rung, so they are left out here
    drawn = {k: v for k, v in figures.all_figures(content).items() if not k.startswith("curves_")}
    made = _documents(root, content, drawn)
    shutil.rmtree(root / FIGURES, ignore_errors=True)
    (root / FIGURES).mkdir(parents=True)
    for name, text in made.items():
        (root / name).write_text(text, encoding="utf-8")
    for name, figure in drawn.items():
        path = root / FIGURES / f"{name}.svg"
        path.write_text(figures.to_svg(figure, name), encoding="utf-8")


def _documents(root: Path, content: Content, drawn: Collection[str]) -> dict[str, str]:
    """Returns the documents' texts by path (relative to ``root``); ``drawn`` names the figures."""
    path = root / "README.md"
    picture = f"![Published and measured test accuracy, rung by rung]({FIGURES}/progression.svg)\n"
    made = {
        "README.md": _filled(path, WRITTEN, _section(content, picture)),
        "docs/results.md": _details(content, drawn),
    }
    above = ROOT / "README.md"
    marker = f"<!-- written by  make readme  from the records of {content.study.name} -->\n"
    if above != path and marker in above.read_text(encoding="utf-8"):
        made[os.path.relpath(above, root)] = _filled(above, marker, _section(content, ""))
    if (benchmarks := root / "benchmarks" / "README.md").exists():
        timed = [benchmarks, *sorted(benchmarks.parent.glob("results/*.md"))]
        texts = [WRITTEN, *(path.read_text(encoding="utf-8") for path in timed)]
        made["docs/benchmarks.md"] = "\n".join(texts)
    return made


def _filled(path: Path, begin: str, text: str) -> str:
    """Returns a file's content with ``text`` between the markers ``begin`` and ``END``."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = old.partition(begin)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        missing = (END if found else begin).strip()
        raise UserError(f"{path}: lacks the line {missing}; add it")
    return before + begin + text + END + after


def _section(content: Content, picture: str) -> str:
    caption = f"Test accuracy on {content.study.dataset_title}"
    table = to_markdown(replace(progression(content), caption=caption), "readme")
    return "\n".join([table, *filter(None, [picture]), f"{message(content).text}\n"])


def _details(content: Content, drawn: Collection[str]) -> str:
    parts = [f"{WRITTEN}\n# Results\n"]
    for name, table in all_tables(content).items():
        if not (table.items and table.at("results")):
            continue
        parts.append(to_markdown(table, "results"))
        if name == "progression":
            parts.append(f"{message(content).text} {wrong(content)}\n\n{_engines(content)}\n")
        picture = {"progression": "validation", "steps": "gains"}.get(name, name)
        if picture in drawn:
            caption = picture.replace("_", " ")
            parts.append(f"![{caption}]({FIGURES.name}/{picture}.svg)\n")
    lines = [line for s in content.systems for line in _commands(s, content)]
    for step in content.ablations:
        lines.append(commands.ablate_command(content, step.step.after.short, step.seeds))
    again = "These commands train each row again (`.venv/bin/ladder record` then records the runs):"
    return "\n".join([*parts, f"{again}\n", *(f"    {line}" for line in lines), ""])


def _engines(content: Content) -> str:
    """Lists the runs of each backend and device, and the runs that cannot be repeated exactly."""

    def rows(runs: Iterable[Run]) -> str:
        by_rung: dict[str, list[Run]] = {}
        for run in runs:
            by_rung.setdefault(rung(run.rung), []).append(run)
        return ", ".join(f"{name} ({seeds(own)})" for name, own in by_rung.items())

    engines: dict[str, list[Run]] = {}
    for run in content.runs:
        engines.setdefault(results.engine(run), []).append(run)
    lines = [f"* {name}: {rows(own)}" for name, own in engines.items()]
    if moved := [run for run in content.runs if "resumed_elsewhere" in run.tags]:
        note = "(tag `resumed_elsewhere`). No single machine can repeat these runs exactly."
        lines.append(f"* Resumed on other hardware: {rows(moved)} {note}")
    if free := [run for run in content.runs if not commands.repeatable(run)]:
        note = "XLA could add numbers in any order, so these runs cannot be repeated exactly."
        lines.append(f"* Trained without deterministic operations: {rows(free)}. {note}")
    return "\n".join(lines)


def _commands(system: System, content: Content) -> list[str]:
    """Returns the commands that repeat a row's runs, or train seed 0 if the row has no runs."""
    data = commands.data_option(content.study, content.runs[0])
    of_engine: dict[tuple[str, ...], list[Run]] = {} if system.runs else {(commands.ladder(),): []}
    for run in system.runs:
        of_engine.setdefault((commands.ladder(run), *commands.bits_options(run)), []).append(run)
    lines = []
    for (ladder, *options), runs in of_engine.items():
        chosen = ["run", system.short, "--seeds", seed_list(run.seed for run in runs) or "0"]
        words = [*chosen, *data, *options, *content.study.options]
        lines.append(f"{ladder} {shlex.join(words)}")
    return lines
