"""The README's tables, written from ``results/`` and the benchmarks': ``python -m report.readme``.

The records are restored into a store of their own for the moment, so that table and figure are
the report's.
"""

import hashlib
import shlex
import tempfile
from pathlib import Path

from report import analysis, figures, page, tables
from report.__main__ import entry
from report.analysis import Content, System
from report.formats import to_markdown
from report.runs import Run
from resnet import UserError, records
from resnet.quiet import quiet_start

ROOT = Path(__file__).resolve().parent.parent
FIGURE = Path("docs/progression.svg")
MARKERS = (
    "<!-- {}: written by  make readme ; changes by hand are lost -->\n",
    "<!-- end of {} -->\n",
)


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
        from resnet import tracking
    with tempfile.TemporaryDirectory() as folder:
        store = tracking.connect(f"sqlite:///{folder}/mlflow.db")
        tracking.restore(store, found)
        return analysis.load(store.uri, recorded=True), state


def section(content: Content) -> str:
    """What stands between the README's two markers, as Markdown."""
    parts = [to_markdown(tables.progression(content), "readme")]
    if content.runs:
        failed = [
            f"* fails: {j.claim.text} ({tables.rung(j.claim.rung)}); measured "
            f"{tables.shown(j)[0]}, holds if {tables.bound(j.claim.bound, j.unit)}\n"
            for j in content.claims
            if j.verdict == "fails"
        ]
        parts += [
            f"![Published and reproduced test accuracy, rung by rung]({FIGURE.as_posix()})\n",
            f"{page.headline(content)} On {_hardware(content)}.\n",
            *(["".join(failed)] if failed else []),
        ]
    lines = [f"    {line}\n" for s in content.systems for line in _commands(s, content)]
    told = "Each row again, recorded by `python runner.py --record` once it is finished:\n\n"
    return "\n".join([*parts, told + "".join(lines)])


def _hardware(content: Content) -> str:
    found = (f"{run.tags.get('device')} ({run.tags.get('backend')})" for run in content.runs)
    return "; ".join(dict.fromkeys(found))


def _commands(system: System, content: Content) -> list[str]:
    """What trains a row's runs, a line for each backend; of a row not run, its first seed."""
    data = shlex.join(tables.data_option(content.runs[0])) if content.runs else ""
    start = f"python runner.py --ladder {system.short} --seeds"
    by_backend: dict[str, list[Run]] = {} if system.runs else {"tensorflow": []}
    for run in system.runs:
        by_backend.setdefault(run.tags["backend"], []).append(run)
    return [
        f"{'' if backend == 'tensorflow' else f'KERAS_BACKEND={backend} '}{start} "
        f"{tables.seed_list(runs) or 0} {data}".rstrip()
        for backend, runs in by_backend.items()
    ]


def stale(root: Path) -> str:
    """What is not as :func:`update` would leave it; empty if nothing.

    Args:
        root: the folder with ``README.md``, ``docs/`` and ``results/``.

    Raises:
        UserError: the README lacks a marker, or a record is damaged.
    """
    content, state = load(root)
    if (root / "README.md").read_text(encoding="utf-8") != _filled(root, content):
        return "README.md"
    figure = root / FIGURE
    drawn = figure.exists() and (not content.runs or state in figure.read_text(encoding="utf-8"))
    return "" if drawn == bool(content.runs) else str(FIGURE)


def update(root: Path) -> None:
    """Writes the README's section and the figure; arguments and errors as of :func:`stale`."""
    content, state = load(root)
    (root / "README.md").write_text(_filled(root, content), encoding="utf-8")
    figure = root / FIGURE
    figure.unlink(missing_ok=True)
    if content.runs:
        figure.parent.mkdir(exist_ok=True)
        # another matplotlib draws other bytes: what the figure shows is told by what is in it
        svg = figures.to_svg(figures.progression(content), "test accuracy", f"records {state}")
        figure.write_text(svg, encoding="utf-8")


def _filled(root: Path, content: Content) -> str:
    """The README with its sections as they should be."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8")
    timings = sorted((root / "benchmarks" / "results").glob("*.md"))
    sections = {
        "results": section(content),
        "benchmarks": "\n".join(timing.read_text(encoding="utf-8") for timing in timings),
    }
    for name, inside in sections.items():
        begin, end = (marker.format(name) for marker in MARKERS)
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise UserError(f"{path}: lacks the line {(end if found else begin).strip()}")
        text = before + begin + inside + end + after
    return text


if __name__ == "__main__":
    entry(lambda: update(ROOT))
