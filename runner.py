"""The command line: ``python runner.py --ladder all`` runs the study's five rungs in sequence."""

import contextlib
import os
import shlex
import signal
import sys
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from report.__main__ import entry as run_command
from resnet import Interrupted, UserError, config
from resnet.quiet import quiet_start

if TYPE_CHECKING:
    from resnet.data import Dataset
    from resnet.tracking import Store

console = Console()
errors = Console(stderr=True)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

EPILOG = """
[bold]Examples[/bold]

  python runner.py --ladder all                     the reproduction, on CIFAR-10

  python runner.py --ladder all --profile quick     the machinery, in minutes, offline

  python runner.py --ladder all --dry-run           the plan and its time, without training

  python runner.py --ladder 1-2 --seeds 0-4         two rungs, five seeds

  python runner.py --ladder 5,vgg --data cifar.zip  an image folder or an archive of one

  python runner.py --ladder 2 --set training.epochs=2

  python runner.py --ladder all --seeds 0-4 --jobs 5 twenty-five runs, five at a time

  python runner.py --restore                        the recorded runs of results/ into mlflow.db

  python runner.py --record                         and finished runs of your own into results/
"""


class Stop:
    """Ctrl-C and SIGTERM: the first asks training to save and stop, the second cuts it off."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        console.print("[yellow]stopping after this step; once more cuts it off[/yellow]")

    def __call__(self) -> bool:
        return self.asked


def parse_seeds(text: str) -> list[int]:
    """``0-4`` or ``0,2,5`` as a list without repeats."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)) or len(part) > 20:
            raise UserError(f"--seeds {text!r}: write numbers such as 0-4 or 0,2,5")
        span = range(int(first), int(last or first) + 1)
        if not 0 < len(span) <= 1000:
            raise UserError(f"--seeds {text!r}: {part.strip()!r} is empty or over 1000 seeds")
        seeds.extend(seed for seed in span if seed not in seeds)
    return seeds


def resolve(name: str, profile: str) -> config.Experiment:
    """An experiment with the profile's changes."""
    return config.apply_profile(config.load(config.find()[name]), profile)


def load(data: str) -> "Dataset":
    """Loads the images with a bar for what takes long."""
    from resnet import data as datasets

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(escape(f"loading {data}"), total=None)
        dataset = datasets.load(
            data,
            lambda what, done, total: bar.update(
                task, description=escape(what), completed=done, total=total or None
            ),
            lambda line: bar.console.print(escape(line), highlight=False),
        )
    console.print(
        f"[bold]{escape(dataset.name)}[/bold]: {len(dataset.x_train):,} training and "
        f"{len(dataset.x_test):,} test images, {len(dataset.classes)} classes, "
        f"fingerprint {dataset.fingerprint[:12]}",
        highlight=False,
    )
    return dataset


def show_plan(
    jobs: list[config.Job],
    dataset: "Dataset | None",
    ladder: dict[str, config.Experiment | None],
) -> None:
    """The dry run: each rung's size and time here, what it changes, and what it assumes anew."""
    from report.analysis import changes
    from resnet import ladder as ladders

    n, shape, classes = 50_000, (32, 32, 3), 10  # CIFAR-10, which need not be downloaded for this
    if dataset:
        n, shape, classes = len(dataset.x_train), dataset.x_train.shape[1:], len(dataset.classes)
    table = Table(
        title=f"Plan for {n:,} training images of {shape[0]}x{shape[1]}", box=box.SIMPLE_HEAD
    )
    table.add_column("rung")
    for heading in ("parameters", "multiply-adds", "epochs", "images/s", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    total = 0.0
    firsts = [job for job in jobs if job.seed == jobs[0].seed]
    for job in firsts:
        with console.status(f"timing {escape(job.experiment.title)}"):
            estimate = ladders.estimate(job, n, classes, shape)
        total += estimate.seconds * len(jobs) / len(firsts)
        table.add_row(
            escape(f"{config.rung_number(job.experiment.name) or '':1} {job.experiment.title}"),
            f"{estimate.parameters:,}",
            f"{estimate.multiply_adds / 1e6:.2f} M",
            str(job.experiment.training.epochs),
            f"{estimate.images_per_second:.0f}",
            duration(estimate.seconds),
        )
    console.print(table)
    previous = {name: ladder[before] for before, name in pairwise(ladder)}
    for job in firsts:
        experiment, before = job.experiment, previous.get(job.experiment.name)
        console.print(f"[bold]{escape(experiment.name)}[/bold]", highlight=False)
        for change in changes(before.flat(), experiment.flat()) if before else ():
            console.print(f"  {escape(change)}", highlight=False)
        for key, reason in experiment.assumed.items():
            if before is None or key not in before.assumed:
                console.print(f"  [dim]assumed {key}: {escape(reason)}[/dim]", highlight=False)
    seeds = len(jobs) // len(firsts)
    console.print(
        f"experiments: {len(firsts)}, seeds: {seeds}, runs: {len(jobs)}; about "
        f"{duration(total)} on this machine, less where early stopping triggers; "
        "nothing was trained"
    )


def conclude(
    store: "Store", parent_id: str, dataset: "Dataset", names: list[str], **chosen: str
) -> None:
    """The last act: the progression table here, the report on disk and with the parent run."""
    from report import analysis, output, summary
    from resnet.store import hide

    uri, out = store.uri, store.checkpoints.parent / "reports" / "latest"
    try:
        with console.status("writing the report"):
            content = analysis.load(uri, dataset=dataset.fingerprint, recorded=False, **chosen)
            output.attach(uri, parent_id, output.write(content, out))
    except UserError as error:  # the runs are safe in MLflow whatever becomes of their report
        errors.print(f"[yellow]no report:[/yellow] {escape(str(error))}", soft_wrap=True)
        return
    console.print(summary.progression(content, names))
    summary.reservation(content, console)
    shown = os.path.relpath(out / output.PAGE)
    console.print(f"report: {escape(shown)}", highlight=False, soft_wrap=True)
    browse = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
    console.print(f"browse: {escape(hide(browse))}", highlight=False, soft_wrap=True)


def record(store: "Store", names: list[str], seeds: list[int] | None) -> None:
    """Writes own finished runs to ``results/``, the newest of each configuration and seed.

    Args:
        store: where they are.
        names: experiments; all if empty.
        seeds: all if None.

    Raises:
        UserError: there is no such run, one of them cannot be recorded, or a file is damaged.
    """
    from resnet import records, tracking

    seen: set[str] = set()
    for run in tracking.recordable(store):
        tags = run.data.tags
        if (names and tags["rung"] not in names) or (seeds and int(tags["seed"]) not in seeds):
            continue
        path = records.FOLDER / records.name(tags)
        if path.name in seen:
            continue
        seen.add(path.name)
        shown, told = escape(os.path.relpath(path)), f"run {run.info.run_id[:8]}"
        if not path.exists():
            records.save(tracking.to_record(store, run), records.FOLDER)
            console.print(f"recorded {shown}: {told}", highlight=False, soft_wrap=True)
        elif (there := records.load(path).run_id) == run.info.run_id:
            console.print(f"there already: {shown}: {told}", highlight=False, soft_wrap=True)
        else:  # which run counts is not to be chosen by its result
            console.print(
                f"[yellow]kept[/yellow] {shown}: it holds run {there[:8]}; delete it to record "
                f"{told} in its place",
                highlight=False,
                soft_wrap=True,
            )
    if not seen:
        raise UserError(
            f"--record: {store.uri} holds no such run: finished, of the full profile, without --set"
        )


def restore(store: "Store") -> None:
    """Puts the runs of ``results/`` into the store; those already there stay as they are.

    Raises:
        UserError: there is no record, one is damaged (then nothing is restored), or the store
            refuses it.
    """
    from resnet import records, tracking

    found = records.load_all(records.FOLDER)
    if not found:
        raise UserError(f"--restore: there is no record in {records.FOLDER}")
    new = tracking.restore(
        store,
        found,
        lambda path: console.print(f"restored {escape(path.stem)}", highlight=False),
    )
    others = ", the others were there" * (new < len(found))
    console.print(f"{new} of {len(found)} recorded runs restored{others}")
    console.print("look at them: python -m report --recorded --open, or make ui")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as ``3:05:00`` or ``4:12``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@app.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main(
    ladder: Annotated[
        str, typer.Option(help="What to run: all, 1-3, 2,5, vgg, or names.", metavar="RUNGS")
    ] = "",
    data: Annotated[
        str | None,
        typer.Option(
            help="cifar10 (downloaded on first use), digits (bundled), or a path: an image folder "
            "train/<class>/*, test/<class>/*, a tar or zip of it, or cifar-10-python.tar.gz.",
            show_default="cifar10",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="full, or quick: digits, few epochs, minutes.")
    ] = "full",
    seed: Annotated[int | None, typer.Option(help="One seed.", min=0, show_default="0")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds: 0-4 or 0,2,5.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change any value: training.epochs=2.", metavar="KEY=VALUE"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and an estimate; train nothing.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew what is finished or begun.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            help="Trainings at a time, each in its own process.",
            min=1,
            show_default="1; on a cluster as many as fit",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: auto, or its HOST:PORT.", metavar="ADDRESS"),
    ] = None,
    cpus_per_run: Annotated[
        int | None,
        typer.Option(
            help="Threads of a training, on which its bits depend.",
            min=1,
            show_default="as many as this machine has cores",
        ),
    ] = None,
    gpus_per_run: Annotated[
        float | None, typer.Option(help="GPUs, or a part of one, that a training takes up.", min=0)
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL (s3://...) of the checkpoints.",
            show_default="beside the store",
            metavar="URL",
        ),
    ] = None,
    record_: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write finished runs of the full profile to results/, as text for git; "
            "--ladder and --seeds choose some.",
        ),
    ] = False,
    restore_: Annotated[
        bool,
        typer.Option("--restore", help="Put the recorded runs of results/ into the store."),
    ] = False,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="MLflow tracking store.",
            envvar="MLFLOW_TRACKING_URI",
            show_default="sqlite:///mlflow.db at the project's top",
        ),
    ] = None,
) -> None:
    """Runs the study's experiment ladder: five steps from 72.3 % to 89.2 % on CIFAR-10.

    Runs go to MLflow. Finished work is skipped; interrupted work goes on where it stopped.
    """
    if seed is not None and seeds is not None:
        raise UserError("--seed and --seeds: give one of them")
    chosen_seeds = parse_seeds(seeds) if seeds is not None else [seed or 0]
    if record_ or restore_:
        if record_ and restore_:
            raise UserError("--record and --restore: give one of them")
        with console.status("starting"), quiet_start():
            from resnet import tracking
        store = tracking.connect(tracking_uri)
        if restore_:
            restore(store)
        else:
            some = seed is not None or seeds is not None
            names = config.select(ladder, config.find()) if ladder else []
            record(store, names, chosen_seeds if some else None)
        return
    if not ladder:
        raise UserError("--ladder is missing: try  python runner.py --ladder all  (or --help)")
    experiments = [resolve(name, profile) for name in config.select(ladder, config.find())]
    for override in set_ or []:
        changes = config.parse_override(override)
        experiments = [
            config.change(e, changes, f"--set {override}: {e.name}") for e in experiments
        ]
    modified = " ".join(set_ or [])
    data = data or ("cifar10" if profile == "full" else config.load_profile(profile).data)

    # on a GPU JAX is free to pick kernels that add in any order, which exact resume rules out
    os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    if (jobs or 1) > 1:  # several processes share a GPU's memory only if none takes all of it
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = cpus_per_run or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or cores
    if cpus_per_run or ray:  # the same on every node, whatever it has
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(cpus)
    with console.status("starting"), quiet_start():  # the imports take seconds
        from resnet import ladder as ladders
        from resnet import terminal, tracking
        from resnet.store import FAILURES, hide, mask

    due = [config.Job(experiment, s) for s in chosen_seeds for experiment in experiments]
    if dry_run:
        known = dict.fromkeys(config.find())
        for name in known:
            with contextlib.suppress(UserError):  # what was not asked for may be broken
                known[name] = resolve(name, profile)
        known |= {experiment.name: experiment for experiment in experiments}
        show_plan(due, None if data == "cifar10" else load(data), known)
        return
    store = tracking.connect(tracking_uri)  # before the images: it may not be there
    if ray and not store.shared:
        raise UserError(
            "--ray: the nodes do not see a file here; give the --tracking-uri of a server"
        )
    dataset = load(data)
    at_once = None
    if ray or ((jobs or 1) > 1 and len(due) > 1):
        from resnet import engine

        at_once = partial(engine.run, processes=jobs, address=ray, cpus=cpus, gpus=gpus_per_run)
    display = terminal.Display(console, due)
    try:
        with display:
            failures, parent_id = ladders.run(
                due,
                dataset,
                store,
                display,
                name=f"ladder {ladder} · {dataset.name} · seed {seeds or chosen_seeds[0]}",
                tags={"profile": profile, "modified": modified},
                fresh=fresh,
                folder=checkpoints,
                at_once=at_once,
                should_stop=Stop(),
            )
    except (Interrupted, KeyboardInterrupt):
        again = hide(shlex.join(argument for argument in sys.argv if argument != "--fresh"))
        console.print(f"[yellow]interrupted;[/yellow] go on with:  python {escape(again)}")
        raise typer.Exit(130) from None
    except FAILURES as error:
        raise UserError(
            f"{mask(store.uri)}: {mask(error)[:300]}; nothing is lost: the same command goes on"
        ) from None
    names = [experiment.name for experiment in experiments]
    conclude(store, parent_id, dataset, names, profile=profile, modified=modified)
    if failures:
        console.print(f"{failures} of {len(due)} runs failed; the same command tries them again")
        raise typer.Exit(1)


def entry() -> None:
    """Runs the command line; a user's mistake is one line on stderr and exit code 2."""
    run_command(app)


if __name__ == "__main__":
    entry()
