"""The README's tables, written from ``results/`` and the benchmarks': ``python -m report.readme``.

The records are restored into a store of their own for the moment, so that table and figure are
the report's. ``--check`` changes nothing and fails where the README is not what would be written.
"""

import hashlib
import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.markup import escape

from report import analysis, claims, figures, tables
from report.__main__ import entry
from report.analysis import Content, System
from report.runs import Run
from resnet import UserError, config, records
from resnet.quiet import quiet_start

ROOT = Path(__file__).resolve().parent.parent
FIGURE = Path("docs/progression.svg")
MARKERS = (
    "<!-- {}: written by  make readme ; changes by hand are lost -->\n",
    "<!-- end of {} -->\n",
)
JPEG = (
    "It is CIFAR-10 re-encoded as JPEG (all 60,000 images at about 30 dB PSNR, an archive of an "
    "image folder `train/<class>/*`, `test/<class>/*`); the published figures are CIFAR-10's own. "
    "Models trained on the variant are known to lose some 2 to 3 points of accuracy."
)

console = Console()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def load(root: Path) -> tuple[Content | None, str]:
    """Reads the records.

    Args:
        root: the folder with ``results/``.

    Returns:
        A report's content, None if there is no record; and what the records are, as one hash.

    Raises:
        UserError: a record is damaged.
    """
    found = records.load_all(root / "results")
    state = hashlib.sha256("".join(r.sha256 for r in found.values()).encode()).hexdigest()
    if not found:
        return None, state
    with quiet_start():  # Keras comes with it, and takes seconds
        from resnet import tracking
    with tempfile.TemporaryDirectory() as folder:
        store = tracking.connect(f"sqlite:///{folder}/mlflow.db")
        tracking.restore(store, found)
        return analysis.load(store.uri, recorded=True), state


def section(content: Content | None) -> str:
    """What stands between the README's two markers.

    Args:
        content: of the recorded runs; None if there are none.

    Returns:
        Markdown.
    """
    study = claims.load_study()
    known = {name: config.load(path) for name, path in config.find().items()}
    systems = content.systems if content else _nothing_run(study, known)
    caption, heading = "Test accuracy, published and reproduced", "published"
    if content:
        caption = f"Test accuracy, {content.selection.shown.label}"
        heading = tables.published_heading(content).removesuffix(" †")
    parts = [_table(systems, known, caption, heading)]
    if content:
        parts = [
            _data(content),
            *parts,
            f"![Published and reproduced test accuracy, rung by rung]({FIGURE.as_posix()})\n",
            *_said_plainly(content),
        ]
    parts.append(
        "Each row again, recorded by `python runner.py --record` once it is finished:\n\n"
        + "".join(f"    {line}\n" for s in systems for line in _commands(s, content))
    )
    return "\n".join(parts)


def _nothing_run(study: claims.Study, known: dict[str, config.Experiment]) -> list[System]:
    return [
        System(name, known[name].title, published, (), "", (), study.tolerance)
        for name, published in study.published.items()
    ]


def _table(
    systems: list[System], known: dict[str, config.Experiment], caption: str, heading: str
) -> str:
    rows = [
        {
            "rung": _short(system),
            "what changed": system.title,
            heading: tables.percent(system.published),
            "reproduced": _reproduced(system),
            "difference": tables.points(system.accuracy - system.published),
            "epochs": tables.whole(system.epochs or [known[system.name].training.epochs]),
            "time a run": tables.duration(system.mean("train_seconds")),
            "on": "\n".join(dict.fromkeys(map(_hardware, system.runs))) or tables.NONE,
        }
        for system in systems
    ]
    frame = pd.DataFrame(rows)
    return tables.to_markdown(tables.Table("progression", caption, frame, frame))


def _short(system: System) -> str:
    return str(config.rung_number(system.name) or system.name)


def _reproduced(system: System) -> str:
    if not system.runs:
        return "not yet run"
    interval = tables.span(system.interval, tables.percent)
    seeds = f"seed{'s' * (len(system.runs) > 1)} {_seeds(system.runs)}"
    return f"{tables.percent(system.accuracy)}\n({interval}; {seeds})"


def _seeds(runs: tuple[Run, ...] | list[Run]) -> str:
    """``0-4`` or ``0,2,5``, as the runner takes them."""
    seeds = sorted(run.seed for run in runs)
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def _hardware(run: Run) -> str:
    return f"{run.tags.get('device', 'unknown')}, {run.tags.get('backend', 'unknown')}"


def _data(content: Content) -> str:
    """What the runs were made on, and what that means for the published figures."""
    shown, run = content.selection.shown, content.runs[0]
    data = (
        f"Data: {shown.dataset}, {run.n_train:,} training and {run.n_test:,} test images, "
        f"fingerprint `{shown.fingerprint[:12]}`."
    )
    if "jpeg" in shown.dataset:
        data += f" {JPEG}"
    elif shown.reservation:
        data += f" The runs were made {shown.reservation}; the published figures are CIFAR-10's."
    return f"{data}\n"


def _said_plainly(content: Content) -> list[str]:
    """How to read the table, and what is off or fails."""
    measured = [s for s in content.systems if s.runs]
    parts = [
        "In brackets the 95 % interval: Student's of the mean over seeds; with one seed the "
        "binomial one of the test set, which leaves out that another seed gives another network.\n",
    ]
    tolerance = f"{100 * content.study.tolerance:g} points"
    off = [
        f"{_rung(s.name)} ({tables.points(s.accuracy - s.published)})"
        for s in measured
        if abs(s.accuracy - s.published) > content.study.tolerance
    ]
    if off:
        parts.append(f"Off by more than {tolerance}: {', '.join(off)}.\n")
    verdicts = [judgement.verdict for judgement in content.claims]
    parts.append(
        f"The study's {len(verdicts)} further claims on these runs: "
        f"hold {verdicts.count('holds')}, fail {verdicts.count('fails')}, undecided "
        f"{'or not run ' if len(measured) < len(content.systems) else ''}"
        f"{verdicts.count('undecided')}.\n"
    )
    failed = [
        f"* fails: {j.claim.text} ({_rung(j.claim.rung)}); measured "
        f"{tables.measured(j.value, j.unit)}, holds if {tables.bound(j.claim.bound, j.unit)}\n"
        for j in content.claims
        if j.verdict == "fails"
    ]
    return [*parts, "".join(failed)] if failed else parts


def _rung(name: str) -> str:
    number = config.rung_number(name)
    return f"rung {number}" if number else name


def _commands(system: System, content: Content | None) -> list[str]:
    """What trains a row's runs, a line for each backend; of a row not run, its first seed."""
    other = content.runs[0] if content else None
    data = f" {shlex.join(tables.data_option(other))}".rstrip() if other else ""
    by_backend: dict[str, list[Run]] = {}
    for run in system.runs:
        by_backend.setdefault(run.tags["backend"], []).append(run)
    start = f"python runner.py --ladder {_short(system)}"
    return [
        f"{'' if backend == 'tensorflow' else f'KERAS_BACKEND={backend} '}{start} "
        f"--seeds {_seeds(runs)}{data}"
        for backend, runs in by_backend.items()
    ] or [f"{start} --seeds 0{data}"]


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
    if content is None:
        return str(FIGURE) if figure.exists() else ""
    drawn = figure.exists() and state in figure.read_text(encoding="utf-8")
    return "" if drawn else str(FIGURE)


def update(root: Path) -> None:
    """Writes the README's section and the figure.

    Args:
        root: the folder with ``README.md``, ``docs/`` and ``results/``.

    Raises:
        UserError: the README lacks a marker, or a record is damaged.
    """
    content, state = load(root)
    (root / "README.md").write_text(_filled(root, content), encoding="utf-8")
    figure = root / FIGURE
    figure.unlink(missing_ok=True)
    if content:
        figure.parent.mkdir(exist_ok=True)
        # another matplotlib draws other bytes: what the figure shows is told by what is in it
        figures.save_svg(figures.progression(content), figure, f"records {state}")


def _filled(root: Path, content: Content | None) -> str:
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


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if the README is stale.")
    ] = False,
) -> None:
    """Writes the README's results and their figure from the records in results/."""
    if not check:
        update(ROOT)
    elif found := stale(ROOT):
        console.print(f"{escape(found)} is stale: run  make readme", highlight=False)
        raise typer.Exit(1)


if __name__ == "__main__":
    entry(app)
