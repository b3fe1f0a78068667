"""The dry run: what would be trained, how large it is, and how long it takes."""

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
from resnet.host import quiet_start, shell
from resnet.host.addresses import file_of, full
from resnet.host.shell import count, duration
from resnet.study import Experiment, Job, Key, Study, differences, rungs
from resnet.terminal.console import console, say

_COLUMNS = {
    "parameters": ("parameters", lambda n: f"{n:,.0f}"),
    "multiply_adds": ("multiply-adds", lambda n: f"{n / 1e6:.2f} M"),
    "lanes": ("lanes", lambda n: f"{n:.0f}"),
    "images_per_second": ("images/s", lambda rate: f"{rate:.0f}"),
    "time": ("time", duration),
}
Known = dict[str, dict[str, float]]
"""What is known for ``_COLUMNS``, by :attr:`resnet.study.Job.row`."""


def show(
    due: list[Job],
    images: Dataset | Source,
    study: Study,
    uri: str | None,
    timing: bool,
    lanes: dict[str, int],
) -> None:
    """Prints each experiment's size and time, if known, what it changes, and what it assumes anew.

    Args:
        due: what would run.
        images: the images, or what is known of them without a download.
        study: of which they are.
        uri: the store whose finished runs tell the time; it need not be there.
        timing: build the networks and time some steps on this machine instead.
        lanes: how many would train side by side, by row.
    """
    n, height, width, channels = images.shape
    firsts = {job.row: job for job in due if job.seed == due[0].seed}
    if timing:
        with console.status("starting"), quiet_start():  # the imports take seconds
            from resnet.ladder import estimate
        known: Known = {}
        shape = height, width, channels
        for name, job in firsts.items():
            with console.status(Text(f"timing {job.title}")):
                known[name] = estimate(job, n, len(images.classes), shape, lanes[name])
    else:
        known = _recorded(firsts, study, images.fingerprint)
    past, done = _past(firsts, study, images.fingerprint, uri)
    known = known | ({} if timing else past)
    if max(lanes.values()) > 1:
        known = {name: known.get(name, {}) | {"lanes": lanes[name]} for name in firsts}
    title = f"Plan for {n:,} training images of {height}x{width}"
    console.print(_sizes(title, firsts, known))
    _print_changes(firsts, study)
    trainings = len({job.trajectory() for job in due})
    counted = f"experiments: {len(firsts)}, seeds: {len(due) // len(firsts)}, runs: {len(due)}"
    if trainings < len(due):
        counted += f" that share {count(trainings, 'training')}"
    left = [job for job in due if (job.row, str(job.seed)) not in done]
    if len(left) < len(due):
        counted += f", {len(due) - len(left)} of them finished"
    took = _took(left, known, timing) if left else "all of these runs are finished"
    console.print(f"{counted}; nothing was trained", highlight=False)
    say(escape(took))


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
    """What each experiment changes against the one before, and what it assumes that one did not."""
    profile = next(iter(firsts.values())).profile
    ladder: dict[str, Experiment | None] = dict.fromkeys(study.files)
    for name in ladder:
        with contextlib.suppress(UserError):  # what was not asked for may be broken
            ladder[name] = study.experiment(name, profile)
    previous = {name: ladder[before] for before, name in pairwise(rungs(ladder))}
    for job in firsts.values():
        experiment = job.experiment
        base, _, part = experiment.name.partition("~")  # of a step, or an alternative
        before = ladder.get(base) if "=" in part else previous.get(base)
        console.print(f"[bold]{escape(job.row)}[/bold]", highlight=False)
        for change in differences(before.flat(), experiment.flat()) if before else ():
            console.print(Padding.indent(escape(change), 2), highlight=False)
        for key, reason in experiment.assumed.items():
            if before is None or key not in before.assumed:
                line = f"[dim]assumed {key}: {escape(reason)}[/dim]"
                console.print(Padding.indent(line, 2), highlight=False)


def _took(due: list[Job], known: Known, timing: bool) -> str:
    """How long the runs that are left take, as far as is known."""
    if not all("time" in known.get(job.row, {}) for job in due):
        return f"how long it takes here:  {shell.again()} --timing"
    longest: dict[tuple, float] = {}  # runs share a training until a schedule changes the rate
    for job in due:
        schedule = job.experiment.training.reduce_lr_on_plateau
        shared = *job.trajectory(), repr(schedule)
        longest[shared] = max(longest.get(shared, 0), known[job.row]["time"])
    basis = "less where early stopping triggers" if timing else "as finished runs took"
    return f"about {duration(sum(longest.values()))} on this machine, {basis}"


def _recorded(jobs: dict[str, Job], study: Study, fingerprint: str) -> Known:
    """How large the networks are, by recorded runs of the same; no record, no entry."""
    from resnet import records

    found: Known = {}
    for name, job in jobs.items():
        digest = Key.of(job, "", fingerprint, "").digest
        for path in records.files(study.results, digest)[:1]:
            final = records.load(path).final
            found[name] = {key: final[key] for key in ("parameters", "multiply_adds")}
    return found


def _past(
    jobs: dict[str, Job], study: Study, fingerprint: str, uri: str | None
) -> tuple[Known, set[tuple[str, str]]]:
    """What finished runs of the same on this machine tell, and which (experiment, seed) are done.

    No run, no entry.
    """
    found: Known = {}
    done: set[tuple[str, str]] = set()
    file = file_of(full(uri))
    if file and not os.path.exists(file):  # noqa: PTH110 - where it is forbidden, too
        return found, done
    with console.status("reading runs"):
        from resnet.store import connect

        try:
            store = connect(uri, study, create=False)
        except UserError:
            return found, done
        same = {"dataset_fingerprint": fingerprint, "status": "FINISHED", "role": "rung"}
        here = {"host": socket.gethostname()}
        here["backend"] = os.environ.get("KERAS_BACKEND", "tensorflow")
        for name, job in jobs.items():
            runs = store.search(config_hash=job.experiment.hash(), **same)
            as_asked = {"profile": job.profile, "modified": job.modified}
            done |= {
                (name, run.data.tags["seed"])
                for run in runs
                if as_asked.items() <= run.data.tags.items()
            }
            mine = [run for run in runs if here.items() <= run.data.tags.items()]
            if metrics := [run.data.metrics for run in mine]:
                found[name] = {key: metrics[0][key] for key in ("parameters", "multiply_adds")}
                # what it took of the device, which it may have shared with other lanes
                found[name]["time"] = fmean(
                    run.data.metrics["train_seconds"] / int(run.data.tags.get("lanes", 1))
                    for run in mine
                )
    return found, done
