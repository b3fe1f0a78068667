"""The dry run: what would be trained, how large it is, and how long it takes."""

import os
import socket
from itertools import pairwise
from statistics import fmean

from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from resnet import UserError, config
from resnet.cli import console
from resnet.data import CIFAR10_FINGERPRINT, Dataset
from resnet.quiet import quiet_start
from resnet.shell import count, duration, file_of, tracking

_COLUMNS = {
    "parameters": ("parameters", lambda n: f"{n:,.0f}"),
    "multiply_adds": ("multiply-adds", lambda n: f"{n / 1e6:.2f} M"),
    "lanes": ("lanes", lambda n: f"{n:.0f}"),
    "images_per_second": ("images/s", lambda rate: f"{rate:.0f}"),
    "time": ("time", duration),
}


def show(
    due: list[config.Job],
    dataset: Dataset | None,
    ladder: dict[str, config.Experiment | None],
    uri: str | None,
    timing: bool,
    lanes: dict[str, int],
) -> None:
    """Prints each experiment's size and time, if known, what it changes, and what it assumes anew.

    Args:
        due: what would run.
        dataset: on which images; CIFAR-10, which need not be downloaded for this, if None.
        ladder: all experiments in order, None for what cannot be read.
        uri: the store whose finished runs tell the time; it need not be there.
        timing: build the networks and time some steps on this machine instead.
        lanes: how many would train side by side, by experiment.
    """
    n, height, width, channels = 50_000, 32, 32, 3
    classes, fingerprint = 10, CIFAR10_FINGERPRINT
    if dataset:
        n, height, width, channels = dataset.x_train.shape
        classes, fingerprint = len(dataset.classes), dataset.fingerprint
    firsts = {job.experiment.name: job for job in due if job.seed == due[0].seed}
    if timing:
        with console.status("starting"), quiet_start():  # the imports take seconds
            from resnet.ladder import estimate
        known = {}
        for name, job in firsts.items():
            with console.status(f"timing {escape(job.experiment.title)}"):
                known[name] = estimate(job, n, classes, (height, width, channels), lanes[name])
    else:
        known = _past(firsts, fingerprint, uri)
    if max(lanes.values()) > 1:
        known = {name: known.get(name, {}) | {"lanes": lanes[name]} for name in firsts}
    table = Table(title=f"Plan for {n:,} training images of {height}x{width}", box=box.SIMPLE_HEAD)
    table.add_column("rung")
    columns = [name for name in _COLUMNS if any(name in figures for figures in known.values())]
    for heading in ("epochs", *(_COLUMNS[name][0] for name in columns)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, job in firsts.items():
        cells = {key: _COLUMNS[key][1](value) for key, value in known.get(name, {}).items()}
        table.add_row(
            escape(config.label(job.experiment)),
            str(job.experiment.training.epochs),
            *(cells.get(key, "-") for key in columns),
        )
    console.print(table)
    previous = {name: ladder[before] for before, name in pairwise(config.rungs(ladder))}
    for job in firsts.values():
        experiment = job.experiment
        base, _, part = experiment.name.partition("~")  # of a step, or an alternative
        before = ladder.get(base) if "=" in part else previous.get(base)
        console.print(f"[bold]{escape(experiment.name)}[/bold]", highlight=False)
        for change in config.changes(before.flat(), experiment.flat()) if before else ():
            console.print(Padding.indent(escape(change), 2), highlight=False)
        for key, reason in experiment.assumed.items():
            if before is None or key not in before.assumed:
                told = f"[dim]assumed {key}: {escape(reason)}[/dim]"
                console.print(Padding.indent(told, 2), highlight=False)
    seeds = len(due) // len(firsts)
    told = "--timing tells how long it takes on this machine"
    if all("time" in known.get(name, {}) for name in firsts):
        basis = "less where early stopping triggers" if timing else "as finished runs took"
        longest: dict[tuple, float] = {}  # runs share a training until a schedule changes the rate
        for name, job in firsts.items():
            schedule = job.experiment.training.reduce_lr_on_plateau
            shared = job.experiment.trajectory(), repr(schedule)
            longest[shared] = max(longest.get(shared, 0), known[name]["time"])
        seconds = seeds * sum(longest.values())
        told = f"about {duration(seconds)} on this machine, {basis}"
    trainings = len({(job.experiment.trajectory(), job.seed) for job in due})
    counted = f"experiments: {len(firsts)}, seeds: {seeds}, runs: {len(due)}"
    if trainings < len(due):
        counted += f" that share {count(trainings, 'training')}"
    console.print(f"{counted}; {told}; nothing was trained", highlight=False)


def _past(
    jobs: dict[str, config.Job], fingerprint: str, uri: str | None
) -> dict[str, dict[str, float]]:
    """What finished runs of the same on this machine tell, by experiment; no run, no entry."""
    file = file_of(tracking(uri))
    if file and not os.path.exists(file):  # noqa: PTH110 - where it is forbidden, too
        return {}
    with console.status("reading runs"):
        from resnet.store import connect

        try:
            store = connect(uri, create=False)
        except UserError:
            return {}
        same = {
            "dataset_fingerprint": fingerprint,
            "host": socket.gethostname(),
            "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
            "status": "FINISHED",
            "role": "rung",
        }
        found = {}
        for name, job in jobs.items():
            runs = store.search(config_hash=job.experiment.hash(), **same)
            if metrics := [run.data.metrics for run in runs]:
                found[name] = {key: metrics[0][key] for key in ("parameters", "multiply_adds")}
                # what it took of the device, which it may have shared with other lanes
                found[name]["time"] = fmean(
                    run.data.metrics["train_seconds"] / int(run.data.tags.get("lanes", 1))
                    for run in runs
                )
        return found
