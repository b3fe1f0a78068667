"""The command line: ``python runner.py --ladder all`` runs the study's five rungs in sequence.

Installed it is called ``ladder``, with a command for each thing there is to do.
"""

from resnet.host import shell

with shell.packages():
    import contextlib
    import os
    import sys
    from collections.abc import Callable, Iterator
    from functools import partial
    from pathlib import Path
    from typing import TYPE_CHECKING, Annotated

    import typer
    from rich.markup import escape

    from report import command as report_command
    from report.keys import keys
    from resnet import Interrupted, UserError, terminal
    from resnet.host import addresses, quiet_start
    from resnet.study import Job, Study, select
    from resnet.terminal import (
        Command,
        Experiments,
        Options,
        TrackingUri,
        console,
        flag,
        helped,
        init,
        load_images,
        parse_seeds,
        say,
        stoppable,
        takes_options,
    )

if TYPE_CHECKING:  # what takes seconds to import is imported when it is needed
    from resnet.data import Dataset
    from resnet.store import Store

TRAINING = {
    "all": "the reproduction, on CIFAR-10",
    "all,vgg --profile quick": "the machinery, in minutes, offline",
    "1-2 --seeds 0-4": "two rungs, five seeds",
    "5,vgg --data cifar.zip": "an image folder or an archive of one",
    "2 --set training.epochs=2": "a value changed",
    "2 --set training.epochs=2,5": "each of several values",
    "all --seeds 0-4 --jobs 5": "25 runs, five at a time",
    "all --seeds 0-4": "the same, side by side on a GPU (JAX)",
}
_ABOUT = """Runs the study's experiment ladder: five rungs from 72.3 % to 89.2 % on CIFAR-10.

Runs go to MLflow. Finished work is skipped; interrupted work goes on where it stopped.
"""
Rungs = Annotated[
    str, typer.Argument(help="all (the rungs); 1-3; 2,5; vgg; or names.", metavar="RUNGS")
]
RungsApart = Annotated[
    str, typer.Argument(help="all, 4, 3-5; or assumed, the alternatives.", metavar="RUNGS")
]


@takes_options
def run(rungs: Rungs, options: Options) -> None:
    """Runs rungs of the ladder. Finished work is skipped; interrupted work goes on."""
    _train(rungs, options, apart=False)


@takes_options
def ablate(rungs: RungsApart, options: Options) -> None:
    """Runs every subset of what rungs change, or the alternatives to what had to be assumed."""
    _train(rungs, options, apart=True)


@takes_options
def plan(
    rungs: Rungs,
    options: Options,
    apart: Annotated[bool, flag("--ablate", "Of every subset of what they change.")] = False,
    timing: Annotated[bool, flag("--timing", "Time some steps here.")] = False,
) -> None:
    """Shows what would be trained, how large it is, how long it takes; trains nothing."""
    _plan(rungs, options, apart=apart, timing=timing)


def record(
    rungs: Annotated[str, typer.Argument(help="Only of these.", metavar="RUNGS")] = "",
    seeds: Annotated[str | None, typer.Option(help="Only these.", metavar="SEEDS")] = None,
    experiments: Experiments = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Writes finished runs of the full profile to results/, as text for git.

    Of each configuration and seed the newest; a record that is there stays.
    """
    study = Study.open(experiments)
    names = select(rungs, study.files) if rungs else list(study.files)
    chosen = {str(seed) for seed in parse_seeds(seeds)} if seeds is not None else None
    with _one_line(tracking_uri, "try again"):
        _record(study, tracking_uri, names if rungs else None, chosen)


def restore(experiments: Experiments = None, tracking_uri: TrackingUri = None) -> None:
    """Puts the recorded runs of results/ into the store; those that are there stay."""
    study = Study.open(experiments)
    with _one_line(tracking_uri, "try again"), console.status("starting"):
        from resnet import records
        from resnet.store import connect, nothing_run

    found = records.load_all(study.results)
    if not found:
        raise nothing_run(study, f"there is no record in {study.results}", tracking_uri)
    with _one_line(tracking_uri, "try again"):
        from report.presentation import output

        store = connect(tracking_uri, study)
        new = output.restore(store, found, lambda path: say(f"restored {escape(path.stem)}"))
    others = ", the others were there" * (new < len(found))
    say(f"{new} of {len(found)} recorded runs restored{others}")
    look = study.command("report", "--recorded", "--open", uri=store.uri)
    say(f"look at them:  {escape(look)}")
    say(f"browse: {escape(_browse(store))}")


def ui(
    port: Annotated[
        int | None,
        typer.Option(
            help="On 127.0.0.1.",
            metavar="N",
            min=1,
            max=65535,
            show_default="5000, or the next free one",
        ),
    ] = None,
    open_: Annotated[
        bool,
        typer.Option("--open/--no-open", help="Open a browser, if there is a display.", metavar=""),
    ] = True,
    experiments: Experiments = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Shows the runs in MLflow's UI; Ctrl-C ends it.

    It prints two addresses: the runs in the order of the rungs, and the newest ladder. The browser
    opens the first. If the store is a server, the addresses are that server's.
    """
    from report.presentation.ui import show

    show(tracking_uri, experiments, port, open_)


def _plan(rungs: str, options: Options, *, apart: bool, timing: bool) -> None:
    from resnet.data import NAMED
    from resnet.terminal.plan import show

    due = options.due(rungs, apart=apart)
    with console.status("reading the claims"):
        from report.analysis import load_statements

        load_statements(options.study)
    options.set_backend(several=True)
    beside = {job.row: 1 for job in due}
    asked = options.lanes if options.one_process or len(due) == 1 else 1
    if asked or os.environ.get("KERAS_BACKEND") == "jax":
        with console.status("starting"), quiet_start():
            from resnet.ladder import lanes

            count = lanes.chosen(asked)
        for jobs in lanes.by_program(due).values():
            n = lanes.trainings(jobs) if count is None else count
            beside |= {job.row: n for job in jobs}
    named = NAMED.get(options.dataset)
    images = named or load_images(options.dataset, options.study.test_fraction)
    show(due, images, options.study, options.tracking_uri, timing, beside)
    if not apart:
        with console.status("weighing the claims"):
            from report.presentation.summary import decidable

            table = decidable(options.study, due)
        if table:
            console.print(table)


def _train(rungs: str, options: Options, *, apart: bool) -> None:
    """Trains what is due, and ends with the report.

    Raises:
        UserError: a mistake that keeps all from running, or the store went away.
        typer.Exit: with code 130 if interrupted, 1 if a run failed.
    """
    due = options.due(rungs, apart=apart)
    options.set_backend(several=not options.one_process)
    with console.status("starting"), quiet_start():  # the imports take seconds
        from report.analysis import load_statements
        from resnet import ladder, records, training
        from resnet.store import connect
        from resnet.terminal.display import Display

        published = load_statements(options.study).published  # a mistake is told before training
        engine, reservations = _engine(options, due), training.reservations()
    for line in reservations:
        say(f"[yellow]{escape(line)}[/yellow]")
    store = connect(options.tracking_uri, options.study)  # before the images: it may not be there
    dataset = load_images(options.dataset, options.study.test_fraction)
    texts = [*dataset.classes, *(job.experiment.title for job in due)]
    if boxes := records.figures.boxes(texts):
        say(f"[yellow]{escape(boxes)}[/yellow]")
    courses = records.courses(store.study.results, due, dataset.fingerprint)
    if dataset.name != store.study.dataset or due[0].profile != "full" or due[0].modified:
        published = {}  # they are of something else
    display = Display(console, due, published, courses)
    again = shell.again(store.uri)
    what = f"{'ablation' if apart else 'ladder'} {rungs}"
    name = f"{what} · {dataset.name} · seed {options.seeds or options.seeds_asked[0]}"
    try:
        with _one_line(store.uri, f"go on with:  {again}"), display, stoppable() as should_stop:
            failures, parents = ladder.run_jobs(
                due,
                dataset,
                store,
                display,
                name=name[:250],  # MLflow's limit
                engine=engine,
                should_stop=should_stop,
                fresh=options.fresh,
                folder=options.checkpoints,
            )
    except (Interrupted, KeyboardInterrupt):
        say(f"[yellow]interrupted;[/yellow] go on with:  {escape(again)}")
        if options.fresh:
            say("what --fresh had not come to yet stays as it was")
        raise typer.Exit(130) from None
    if display.idle:
        say("all of these runs are finished; nothing was trained")
    if failures:
        say(f"{failures} of {len(due)} runs failed; try again:  {escape(again)}")
    _conclude(store, parents, dataset, due)
    if failures:
        raise typer.Exit(1)


def _engine(options: Options, due: list[Job]) -> Callable | None:
    """What runs several at a time; None if one runs after the other."""
    if options.one_process or (not options.ray and len(due) == 1):
        from resnet.ladder import lanes

        count = lanes.chosen(options.lanes)
        return None if count == 1 else partial(lanes.run, lanes=count)
    from resnet.ladder import cluster

    return partial(
        cluster.run,
        processes=options.jobs,
        address=options.ray,
        cpus=options.threads,
        gpus=options.gpus_per_run,
        study=options.study,
    )


def _conclude(store: "Store", parents: dict[str, str], dataset: "Dataset", due: list[Job]) -> None:
    """The last act: the table here, the report on disk and with the parent runs.

    Raises:
        UserError: the report cannot be made or written.
    """
    from report import analysis
    from report.presentation import output, summary

    out = store.checkpoints.parent / "reports" / store.study.name
    modified, *others = parents  # of a sweep there are several
    chosen = {"profile": due[0].profile, "modified": modified, "recorded": False}
    try:
        with console.status("writing the report"):
            chosen |= {"dataset": dataset.fingerprint, "compare": others}
            content = analysis.load(store.uri, store.study, **chosen)
            output.write(content, out)
            for one in (content, *content.compared):
                if parent_id := parents[one.run_set.modified]:
                    output.attach(store, parent_id, one, out)
    except UserError as error:
        raise UserError(f"the runs are kept, but there is no report of them: {error}") from None
    summary.trained(content, due, console)
    say(f"report: {escape(shell.typed(out / output.PAGE))}")
    say(f"browse: {escape(_browse(store))}")


def _browse(store: "Store") -> str:
    """How a store is looked at: a server's address, or the command that starts one."""
    if store.uri.startswith("http"):
        return shell.hide(store.uri)
    if store.uri == addresses.DEFAULT_URI and not store.study.options and shell.made_here():
        return shell.make("ui")
    return store.study.command("ui", uri=store.uri)


def _record(study: Study, uri: str | None, names: list[str] | None, seeds: set[str] | None) -> None:
    """Writes own finished runs to the study's results, the newest of each configuration and seed.

    Raises:
        UserError: there is no such run, or a file is damaged.
        typer.Exit: with code 1 if one of them cannot be recorded.
    """
    with console.status("starting"):
        from resnet import records
        from resnet.store import connect

    store = connect(uri, study, create=False)
    seen: set[Path] = set()
    failed = False
    for run in records.recordable(store):
        rung, seed = (run.data.tags.get(name, "") for name in ("rung", "seed"))
        if (names and rung not in names) or (seeds and seed not in seeds):
            continue
        try:
            path = study.results / records.key_of(run).file
            record = None if path in seen or path.exists() else records.to_record(store, run)
        except UserError as error:  # which is no reason not to record the others
            say(f"[red]not recorded:[/red] {escape(str(error))}")
            failed = True
            continue
        if path in seen:
            continue
        seen.add(path)
        file, this = escape(os.path.relpath(path)), f"run {run.info.run_id[:8]}"
        if record:
            records.save(record, study.results)
            say(f"recorded {file}: {this}")
        elif (there := records.load(path).run_id) == run.info.run_id:
            say(f"there already: {file}: {this}")
        else:  # which run counts is not to be chosen by its result
            say(
                f"[yellow]kept[/yellow] {file}: it holds run {there[:8]}; delete it to record "
                f"{this} in its place"
            )
    if failed:
        raise typer.Exit(1)
    if not seen:
        raise UserError(
            f"record: {shell.mask(store.uri)} holds no such run: finished, of the full profile, "
            "without --set"
        )


@contextlib.contextmanager
def _one_line(uri: str | None, way_out: str) -> Iterator[None]:
    """Makes a line of what a store that went away or a full disk raises."""
    from resnet.store import FAILURES

    try:
        yield
    except FAILURES as error:
        reason = f"{shell.mask(uri or addresses.DEFAULT_URI)}: {shell.mask(error)[:300]}"
        raise UserError(f"{reason}; nothing is lost, {way_out}") from None


def _more() -> list[str]:
    """What the help of whatever trains ends with."""
    names = {
        "Rungs": ", ".join(Study.open().files),
        "Keys of --set": shell.command("ladder", "keys"),
    }
    return [f"[bold]{what}[/bold]  {escape(text)}" for what, text in names.items()]


def _as_command(words: list[str]) -> list[str]:
    """Makes a command of ``--ladder RUNGS`` and ``--ablate RUNGS``; others stay as they are.

    Raises:
        UserError: there is neither, or more than one.
    """
    if words[:1] in (["-h"], ["--help"]) or (words and not words[0].startswith("-")):
        if words[0] in ("run", "ablate") and "--dry-run" in words:
            rest = [word for word in words[1:] if word != "--dry-run"]
            return ["plan", *rest, *["--ablate"] * (words[0] == "ablate")]
        return words
    asked, rest, left = {}, [], iter(words)
    for word in left:
        option, equals, rungs = word.partition("=")
        if option in ("--ladder", "--ablate"):
            asked[option] = rungs if equals else next(left, "")
        else:
            rest.append(word)
    if not asked:
        start = shell.command("ladder", "run", "all")
        if not words or words == ["--dry-run"]:
            raise UserError(f"--ladder is missing: try  {start}  (or --help)")
        raise UserError(f"{words[0]}: options come after a command, as in  {start} --seeds 0-4")
    if len(asked) > 1:
        raise UserError("--ladder and --ablate: give one of them")
    if rest and not rest[0].startswith("-"):
        raise UserError(f"{rest[0]}: stands alone, without {next(iter(asked))}")
    ((option, rungs),) = asked.items()
    if not rungs.strip():
        raise UserError(f"{option}: is empty; give rungs, as in  {option} all")
    command = ["ablate" if option == "--ablate" else "run", rungs]
    if "--dry-run" in rest:
        rest.remove("--dry-run")
        command = ["plan", rungs, *["--ablate"] * (option == "--ablate")]
    return [*command, *rest]


def _app() -> typer.Typer:
    """The command line, each command with its examples."""
    own = {f"--ladder {rungs}": what for rungs, what in TRAINING.items()}
    own |= {"--ladder all --dry-run": "the plan", "--ablate 4": "every subset of what it changes"}
    app = typer.Typer(
        cls=terminal.Group,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback(**helped(_ABOUT, ("ladder",), own))(lambda: None)
    seeds = {"all --seeds 0-4": "five seeds each"}
    commands: dict[Callable, tuple[dict[str, str], list[str]]] = {
        run: (TRAINING, _more()),
        ablate: ({"4": "rung 4", "assumed --seeds 0-4": "the alternatives", **seeds}, _more()),
        plan: ({"all": "the whole ladder", "all --timing": "and how long it takes here"}, _more()),
        keys: ({"": "all", "training": "of training", "training.optimizer": "of optimizers"}, []),
        init: ({"mine": "in the folder mine"}, []),
        record: ({"": "all of your own", "1-3 --seeds 0": "some"}, []),
        restore: ({"": "into mlflow.db", "--tracking-uri sqlite:////tmp/x.db": "elsewhere"}, []),
        report_command.report: (report_command.EXAMPLES, []),
        ui: ({"": "this project's runs, or the records", "--no-open --port 8080": ""}, []),
    }
    for command, (examples, more) in commands.items():
        words = ("ladder", command.__name__)
        text = command.__doc__ or ""
        app.command(cls=Command, **helped(text, words, examples, *more))(command)
    return app


def entry() -> None:
    """The console command ``ladder``."""
    terminal.run(
        lambda: _app()(_as_command(sys.argv[1:]))
    )  # what is wrong with the study is told there, too


if __name__ == "__main__":
    entry()
