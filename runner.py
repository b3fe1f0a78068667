"""The command line: ``python runner.py --ladder all`` runs the study's five rungs in sequence."""

from resnet import shell

with shell.packages():
    import contextlib
    import os
    import signal
    from collections.abc import Callable, Iterator, Sequence
    from dataclasses import dataclass
    from functools import partial
    from types import FrameType
    from typing import TYPE_CHECKING, Annotated, Any

    import typer
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from resnet import Interrupted, UserError, ablation, cli, config, machine
    from resnet.cli import console, say
    from resnet.quiet import quiet_start

if TYPE_CHECKING:
    from resnet.data import Dataset
    from resnet.store import Store

EXAMPLES = {
    "--ladder all": "the reproduction, on CIFAR-10",
    "--ladder all,vgg --profile quick": "the machinery, in minutes, offline",
    "--ladder all --dry-run": "the plan, without training",
    "--ladder 1-2 --seeds 0-4": "two rungs, five seeds",
    "--ladder 5,vgg --data cifar.zip": "an image folder or an archive of one",
    "--ladder 2 --set training.epochs=2": "a value changed",
    "--ladder all --seeds 0-4 --jobs 5": "25 runs, five at a time",
    "--ladder all --seeds 0-4": "the same, side by side on a GPU (JAX)",
    "--ablate 4": "every subset of what rung 4 changes",
    "--restore": "puts the recorded runs into the store",
    "--record": "writes your own to results/",
}


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM: the first makes what is yielded true, the second cuts training off."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        say("[yellow]stopping after this step; once more cuts it off[/yellow]")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def choose(ladder: str, ablate: str, profile: str, overrides: list[str]) -> list[config.Experiment]:
    """The experiments that ``--ladder`` or ``--ablate`` names, with the changes asked for."""
    if ladder and ablate:
        raise UserError("--ladder and --ablate: give one of them")
    if not (ladder or ablate):
        start = shell.command("runner.py", "--ladder", "all")
        raise UserError(f"--ladder is missing: try  {start}  (or --help)")
    config.check_names()
    load = partial(resolve, profile=profile, overrides=overrides)
    if ladder:
        return [load(name) for name in config.select(ladder, config.find())]
    return ablation.select(ablate, list(config.find()), load)


def resolve(name: str, profile: str, overrides: Sequence[str] = ()) -> config.Experiment:
    """An experiment with the changes of the profile, then of each ``--set``."""
    experiment = config.apply_profile(config.load(config.find()[name]), profile)
    for override in overrides:
        changes = config.parse_override(override)
        experiment = config.change(experiment, changes, f"--set {override}: {name}")
    return experiment


def set_backend(several: bool, cpus: int | None) -> None:
    """Sets what Keras's backends read when they are imported.

    Args:
        several: whether other processes may be at the same GPU.
        cpus: threads of a training; None leaves it to the backend.
    """
    if several:  # which they can only if none takes all of its memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if cpus:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(cpus)


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
    say(
        f"[bold]{escape(dataset.name)}[/bold]: {len(dataset.x_train):,} training and "
        f"{len(dataset.x_test):,} test images, {len(dataset.classes)} classes, "
        f"fingerprint {dataset.fingerprint[:12]}"
    )
    return dataset


@dataclass(frozen=True)
class Request:
    """What is to be trained, as the options say it."""

    what: str
    seeds: str
    due: list[config.Job]
    data: str
    tracking_uri: str | None
    profile: str
    modified: str


@contextlib.contextmanager
def one_line(uri: str, way_out: str) -> Iterator[None]:
    """Makes a line of what a store that went away or a full disk raises."""
    from resnet.store import FAILURES, mask

    try:
        yield
    except FAILURES as error:
        raise UserError(f"{mask(uri)}: {mask(error)[:300]}; nothing is lost, {way_out}") from None


def plan(request: Request, timing: bool, lanes_: int | None) -> None:
    """Shows what the request would train."""
    from resnet import plan

    beside = {job.experiment.name: 1 for job in request.due}
    if lanes_ or os.environ.get("KERAS_BACKEND") == "jax":
        with console.status("starting"), quiet_start():
            from resnet import lanes

            count = lanes.chosen(lanes_)
        for jobs in lanes.by_program(request.due).values():
            n = lanes.trainings(jobs) if count is None else count
            beside |= {job.experiment.name: n for job in jobs}

    others: dict[str, config.Experiment | None] = dict.fromkeys(config.find())
    for name in others:
        with contextlib.suppress(UserError):  # what was not asked for may be broken
            others[name] = resolve(name, request.profile)
    dataset = None if request.data == "cifar10" else load(request.data)
    plan.show(request.due, dataset, others, request.tracking_uri, timing, beside)


def train(request: Request, several: Callable[[], Callable | None], **options: Any) -> None:
    """Does what the request says, and ends with the report.

    Args:
        request: what.
        several: makes what runs several at a time; it makes None if one runs after the other.
        **options: ``fresh`` and ``folder`` of :func:`resnet.ladder.run`.

    Raises:
        UserError: a mistake that keeps all from running, or the store went away.
        typer.Exit: with code 130 if interrupted, 1 if a run failed.
    """
    with console.status("starting"), quiet_start():  # the imports take seconds
        from resnet import figures, ladder, numerics, terminal
        from resnet.store import connect

        at_once, reservations = several(), numerics.reservations()
    for line in reservations:
        say(f"[yellow]{escape(line)}[/yellow]")
    store = connect(request.tracking_uri)  # before the images: it may not be there
    dataset = load(request.data)
    if told := figures.boxes([*dataset.classes, *(job.experiment.title for job in request.due)]):
        say(f"[yellow]{escape(told)}[/yellow]")
    tags = {"profile": request.profile, "modified": request.modified}
    display = terminal.Display(console, request.due, published(dataset, **tags))
    again = shell.again(store.uri)
    try:
        with one_line(store.uri, f"go on with:  {again}"), display, stoppable() as should_stop:
            failures, parent_id = ladder.run(
                request.due,
                dataset,
                store,
                display,
                name=f"{request.what} · {dataset.name} · seed {request.seeds}"[:250],  # MLflow's
                tags=tags,
                at_once=at_once,
                should_stop=should_stop,
                **options,
            )
    except (Interrupted, KeyboardInterrupt):
        say(f"[yellow]interrupted;[/yellow] go on with:  {escape(again)}")
        if options["fresh"]:
            say("what --fresh had not come to yet stays as it was")
        raise typer.Exit(130) from None
    conclude(store, parent_id, dataset, [job.experiment.name for job in request.due], **tags)
    if failures:
        say(f"{failures} of {len(request.due)} runs failed; try again:  {escape(again)}")
        raise typer.Exit(1)


def published(dataset: "Dataset", profile: str, modified: str) -> dict[str, float]:
    """The study's accuracies where they are of the same: its dataset, its settings."""
    if dataset.name != "cifar10" or profile != "full" or modified:
        return {}
    from report import claims

    return claims.load_study().published


def conclude(
    store: "Store", parent_id: str, dataset: "Dataset", names: list[str], **chosen: str
) -> None:
    """The last act: the progression table here, the report on disk and with the parent run."""
    from report import analysis, output, summary

    out = store.checkpoints.parent / "reports" / "latest"
    if not parent_id:
        say("all of these runs are finished; nothing was trained")
    try:
        with console.status("writing the report"):
            content = analysis.load(
                store.uri, dataset=dataset.fingerprint, recorded=False, **chosen
            )
            output.write(content, out)
            if parent_id:
                output.attach(store.uri, parent_id, out)
    except UserError as error:  # the runs are safe in MLflow whatever becomes of their report
        cli.errors.print(f"[yellow]no report:[/yellow] {escape(str(error))}", soft_wrap=True)
        return
    console.print(summary.progression(content, names))
    taken_apart = {name.partition("~")[0] for name in names if "~" in name}
    for table in summary.parts(content, taken_apart):
        console.print(table)
    summary.reservation(content, console)
    say(f"report: {escape(shell.typed(out / output.PAGE))}")
    say(f"browse: {escape(shell.browse(store.uri))}")


def record(tracking_uri: str | None, names: list[str], seeds: list[int] | None) -> None:
    """Writes own finished runs to ``results/``, the newest of each configuration and seed.

    Args:
        tracking_uri: the store where they are.
        names: experiments; all if empty.
        seeds: all if None.

    Raises:
        UserError: there is no such run, one of them cannot be recorded, or a file is damaged.
    """
    from resnet.store import connect, mask

    store = connect(tracking_uri, create=False)
    with console.status("starting"), quiet_start():
        from resnet import recording, records
    seen: set[str] = set()
    for run in recording.recordable(store):
        tags = run.data.tags
        if (names and tags["rung"] not in names) or (seeds and int(tags["seed"]) not in seeds):
            continue
        path = records.FOLDER / records.name(tags)
        if path.name in seen:
            continue
        seen.add(path.name)
        shown, told = escape(os.path.relpath(path)), f"run {run.info.run_id[:8]}"
        if not path.exists():
            records.save(recording.to_record(store, run), records.FOLDER)
            say(f"recorded {shown}: {told}")
        elif (there := records.load(path).run_id) == run.info.run_id:
            say(f"there already: {shown}: {told}")
        else:  # which run counts is not to be chosen by its result
            say(
                f"[yellow]kept[/yellow] {shown}: it holds run {there[:8]}; delete it to record "
                f"{told} in its place"
            )
    if not seen:
        raise UserError(
            f"--record: {mask(store.uri)} holds no such run: finished, of the full profile, "
            "without --set"
        )


def restore(tracking_uri: str | None) -> None:
    """Puts the runs of ``results/`` into the store; those already there stay as they are.

    Raises:
        UserError: there is no record, one is damaged (then nothing is restored), or the store
            refuses it.
    """
    with console.status("starting"), quiet_start():
        from resnet import recording, records
        from resnet.store import connect, nothing_run
    found = records.load_all(records.FOLDER)
    if not found:
        raise nothing_run(f"there is no record in {records.FOLDER}", tracking_uri)
    store = connect(tracking_uri)
    new = recording.restore(store, found, lambda path: say(f"restored {escape(path.stem)}"))
    others = ", the others were there" * (new < len(found))
    say(f"{new} of {len(found)} recorded runs restored{others}")
    look = shell.command("-m", "report", "--recorded", "--open", uri=store.uri)
    say(f"look at them:  {escape(look)}")
    say(f"browse: {escape(shell.browse(store.uri))}")


def main(
    ladder: Annotated[
        str,
        typer.Option(
            help="What to run: all (the rungs); 1-3; 2,5; vgg; or names.", metavar="RUNGS"
        ),
    ] = "",
    ablate: Annotated[
        str,
        typer.Option(
            help="Every subset of what these rungs change: all, 4, 3-5; or assumed, the "
            "alternatives to what the study leaves open.",
            metavar="RUNGS",
        ),
    ] = "",
    data: Annotated[
        str | None,
        typer.Option(
            help="cifar10 (downloaded on first use), digits (bundled), or a path: an image folder "
            "train/<class>/*, test/<class>/*, a tar or zip of it, or cifar-10-python.tar.gz.",
            metavar="DATA",
            show_default="cifar10",
        ),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="full, or quick: digits, few epochs, minutes.", metavar="NAME")
    ] = "full",
    seed: Annotated[
        int | None, typer.Option(help="One seed.", metavar="N", min=0, show_default="0")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several seeds: 0-4 or 0,2,5.", metavar="SEEDS")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a value, as in training.epochs=2; may be repeated. Keys: see below.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    dry_run: Annotated[bool, cli.flag("--dry-run", "Show the plan; train nothing.")] = False,
    timing: Annotated[bool, cli.flag("--timing", "With --dry-run: time some steps here.")] = False,
    fresh: Annotated[bool, cli.flag("--fresh", "Begin anew what is finished or begun.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            help="Trainings at a time, each in its own process.",
            metavar="N",
            min=1,
            show_default="1; on a cluster as many as fit",
        ),
    ] = None,
    lanes_: Annotated[
        int | None,
        typer.Option(
            "--lanes",
            help="Trainings side by side in one program (JAX), on which their bits depend.",
            metavar="N",
            min=1,
            show_default="on a GPU as many as there are of one program, else 1",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: auto, or its HOST:PORT.", metavar="ADDRESS"),
    ] = None,
    cpus_per_run: Annotated[
        int | None,
        typer.Option(
            help="Threads of a training with TensorFlow, on which its bits depend.",
            metavar="N",
            min=1,
            show_default="as many as this machine has cores",
        ),
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        typer.Option(help="GPUs, or a part of one, that a training takes up.", metavar="N", min=0),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL (s3://...) of the checkpoints.",
            metavar="URL",
            show_default="beside the store",
        ),
    ] = None,
    record_: Annotated[
        bool,
        cli.flag(
            "--record",
            "Write finished runs of the full profile to results/, as text for git; "
            "--ladder and --seeds choose some.",
        ),
    ] = False,
    restore_: Annotated[
        bool, cli.flag("--restore", "Put the recorded runs of results/ into the store.")
    ] = False,
    tracking_uri: cli.TrackingUri = None,
) -> None:
    """Runs the study's experiment ladder: five rungs from 72.3 % to 89.2 % on CIFAR-10.

    Runs go to MLflow. Finished work is skipped; interrupted work goes on where it stopped.
    """
    if seed is not None and seeds is not None:
        raise UserError("--seed and --seeds: give one of them")
    if record_ and restore_:
        raise UserError("--record and --restore: give one of them")
    if timing and not dry_run:
        raise UserError("--timing: goes with --dry-run")
    if ray and shell.file_of(shell.tracking(tracking_uri)):
        raise UserError(
            "--ray: the nodes do not see a file here; give the --tracking-uri of a server"
        )
    if (lanes_ or 1) > 1 and (ray or (jobs or 1) > 1):
        raise UserError("--lanes: does not go with --jobs or --ray, whose trainings are apart")
    if gpus_per_run and gpus_per_run > 1 and gpus_per_run % 1:
        raise UserError(f"--gpus-per-run {gpus_per_run:g}: beyond one only whole ones")
    chosen = parse_seeds(seeds) if seeds is not None else [seed or 0]
    if record_ or restore_:
        others: dict[str, Any] = {"--ablate": ablate, "--data": data, "--set": set_}
        others |= {"--dry-run": dry_run, "--fresh": fresh}
        if restore_:
            others |= {"--ladder": ladder, "--seeds": seeds or seed is not None}
        if given := [name for name, value in others.items() if value]:
            what = "--restore" if restore_ else "--record"
            raise UserError(f"{what}: does not go with {', '.join(given)}")
        names = config.select(ladder, config.find()) if ladder else []
        with one_line(tracking_uri or shell.DEFAULT_URI, "try again"):
            if restore_:
                return restore(tracking_uri)
            return record(tracking_uri, names, None if seed is seeds is None else chosen)
    experiments = choose(ladder, ablate, profile, set_ or [])
    # in whatever order, the same; of two values of a key the last counts
    modified = " ".join(sorted({text.partition("=")[0]: text for text in set_ or []}.values()))
    request = Request(
        what=f"ladder {ladder}" if ladder else f"ablation {ablate}",
        seeds=seeds or str(chosen[0]),
        due=[config.Job(experiment, s, modified) for s in chosen for experiment in experiments],
        data=data or ("cifar10" if profile == "full" else config.load_profile(profile).data),
        tracking_uri=tracking_uri,
        profile=profile,
        modified=modified,
    )
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS") or "0"
    if not threads.isdecimal():
        raise UserError(f"TF_NUM_INTRAOP_THREADS is {threads!r}: give a number, or unset it")
    cpus = cpus_per_run or int(threads) or machine.cores()
    # the same on every node of a cluster, whatever it has
    several_processes = bool(ray) or (jobs or 1) > 1 or dry_run
    set_backend(several_processes, cpus if cpus_per_run or ray else None)
    alone = not ray and ((jobs or 1) == 1 or len(request.due) == 1)
    if dry_run:
        return plan(request, timing, lanes_ if alone else 1)

    def several() -> Callable | None:
        if not alone:
            from resnet import engine

            return partial(engine.run, processes=jobs, address=ray, cpus=cpus, gpus=gpus_per_run)
        from resnet import lanes

        count = lanes.chosen(lanes_)
        return None if count == 1 else partial(lanes.run, lanes=count)

    return train(request, several, fresh=fresh, folder=checkpoints)


KEYS = {"Rungs": config.find(), "Keys of --set": config.keys()}
app = cli.app(
    main,
    ("runner.py",),
    EXAMPLES,
    *(f"[bold]{what}[/bold]  {escape(', '.join(names))}" for what, names in KEYS.items()),
)
entry = partial(cli.run, app)

if __name__ == "__main__":
    entry()
