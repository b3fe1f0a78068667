"""Shows what a command would train: the runs, network sizes, times, and each rung's changes."""

import contextlib
import os
import socket
from itertools import pairwise
from statistics import fmean

from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from resnet import UserError
from resnet.data import Dataset, Source
from resnet.host import command_lines, quiet_start
from resnet.host.messages import count, duration
from resnet.study import Job, Key, Study, differences, rungs
from resnet.terminal.console import console, say
from resnet.terminal.options import Options

_COLUMNS = {
    "parameters": ("parameters", lambda n: f"{n:,.0f}"),
    "multiply_adds": ("multiply-adds", lambda n: f"{n / 1e6:.2f} M"),
    "lanes": ("lanes", lambda n: f"{n:.0f}"),
    "images_per_second": ("images/s", lambda rate: f"{rate:.0f}"),
    "time": ("time", duration),
}
Known = dict[str, dict[str, float]]
"""Maps each :attr:`resnet.study.Job.row` to its known figures, with keys from ``_COLUMNS``."""


def show(due: list[Job], images: Dataset | Source, lanes: dict[str, int], options: Options) -> None:
    """Prints each experiment's size, time, changes and assumptions.

    ``lanes`` maps each row to the number of lanes of its program. With ``options.timing``, the
    times are measured on a few batches. Otherwise, they come from finished runs in the store.
    """
    study = options.study
    n, height, width, channels = images.shape
    firsts = {job.row: job for job in due if job.seed == due[0].seed}
    past, done = _past(firsts, options, images.fingerprint)
    if options.timing:
        with console.status("starting"), quiet_start():  # the imports take seconds
            from resnet.engines import estimate
        known: Known = {}
        shape = height, width, channels
        for name, job in firsts.items():
            with console.status(Text(f"timing {job.title}")):
                known[name] = estimate(job, n, len(images.classes), shape, lanes[name])
    else:
        known = _recorded(firsts, study, images.fingerprint) | past
    if max(lanes.values()) > 1:
        known = {name: known.get(name, {}) | {"lanes": lanes[name]} for name in firsts}
    title = f"Plan for {n:,} training images of {height}x{width}"
    console.print(_sizes(title, firsts, known))
    _print_changes(firsts, study)
    trainings = len({job.trajectory() for job in due})
    counted = f"experiments: {len(firsts)}, seeds: {len(due) // len(firsts)}, runs: {len(due)}"
    if trainings < len(due):
        counted += f" (sharing {count(trainings, 'set')} of checkpoints)"
    left = [job for job in due if (job.row, str(job.seed)) not in done]
    if len(left) < len(due):
        counted += f", finished runs: {len(due) - len(left)}"
    console.print(f"{counted}; nothing was trained", highlight=False)
    say(escape(_time_left(left, known, options.timing)))


def _sizes(title: str, firsts: dict[str, Job], known: Known) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    table.add_column("rung")
    columns = [name for name in _COLUMNS if any(name in figures for figures in known.values())]
    for heading in ("epochs", *(_COLUMNS[name][0] for name in columns)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, job in firsts.items():
        cells = {key: _COLUMNS[key][1](value) for key, value in known.get(name, {}).items()}
        table.add_row(
            escape(job.label),
            str(job.experiment.training.epochs),
            *(cells.get(key, "-") for key in columns),
        )
    return table


def _print_changes(firsts: dict[str, Job], study: Study) -> None:
    profile = next(iter(firsts.values())).profile
    previous = {name: before for before, name in pairwise(rungs(study.files))}
    for job in firsts.values():
        experiment = job.experiment
        rung, _, part = experiment.name.partition("~")
        base = rung if "=" in part else previous.get(rung)  # "=" marks an alternative value
        before = study.experiment(base, profile) if base else None
        console.print(f"[bold]{escape(job.row)}[/bold]", highlight=False)
        lines = differences(before.flat(), experiment.flat()) if before else []
        lines = [escape(change) for change in lines]
        for key, reason in experiment.assumed.items():
            if before is None or key not in before.assumed:
                lines.append(f"[dim]assumed {key}: {escape(reason)}[/dim]")
        for line in lines:
            console.print(Padding.indent(line, 2), highlight=False)


def _time_left(left: list[Job], known: Known, timing: bool) -> str:
    if not left:
        return "all of these runs are finished"
    if not all("time" in known.get(job.row, {}) for job in left):
        return f"to measure the time on this machine:  {command_lines.again()} --timing"
    longest: dict[tuple, float] = {}  # runs with the same trajectory and schedule share epochs
    for job in left:
        schedule = job.experiment.training.reduce_lr_on_plateau
        shared = *job.trajectory(), repr(schedule)
        longest[shared] = max(longest.get(shared, 0), known[job.row]["time"])
    basis = "less if early stopping triggers" if timing else "judging by finished runs"
    return f"about {duration(sum(longest.values()))} on this machine, {basis}"


def _recorded(jobs: dict[str, Job], study: Study, fingerprint: str) -> Known:
    from resnet import records

    found: Known = {}
    for name, job in jobs.items():
        digest = Key.of(job, "", fingerprint, "").digest
        for path in records.files(study.results, digest)[:1]:
            final = records.load(path).final
            found[name] = {key: final[key] for key in ("parameters", "multiply_adds")}
    return found


def _past(
    jobs: dict[str, Job], options: Options, fingerprint: str
) -> tuple[Known, set[tuple[str, str]]]:
    """Returns figures of this machine's finished runs, and (row, seed) of all finished runs."""
    found: Known = {}
    done: set[tuple[str, str]] = set()
    # connect raises a UserError if there are no runs yet
    with console.status("reading runs"), contextlib.suppress(UserError):
        from resnet.store import connect

        store = connect(options.tracking_uri, options.study, create=False)
        same = {"dataset_fingerprint": fingerprint, "status": "FINISHED", "role": "rung"}
        here = {"host": socket.gethostname()}
        here["backend"] = os.environ.get("KERAS_BACKEND", "tensorflow")
        for name, job in jobs.items():
            runs = store.search(config_hash=job.experiment.hash(), **same)
            asked = {"profile": job.profile, "modified": job.modified}
            tags = [run.data.tags for run in runs]
            done |= {(name, t["seed"]) for t in tags if asked.items() <= t.items()}
            mine = [run.data for run in runs if here.items() <= run.data.tags.items()]
            if mine:
                figures = mine[0].metrics
                found[name] = {key: figures[key] for key in ("parameters", "multiply_adds")}
                # lanes share the device, so a run's time is divided by the number of lanes
                found[name]["time"] = fmean(
                    run.metrics["train_seconds"] / int(run.tags.get("lanes", 1)) for run in mine
                )
    return found, done
