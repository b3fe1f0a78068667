"""The command line, which is installed as the program ``ladder``.

``python runner.py --ladder all`` runs the study's five rungs in sequence.
"""

from resnet.host import command_lines, messages

with command_lines.packages():
    import contextlib
    import inspect
    import os
    import sys
    from collections.abc import Callable, Iterator
    from functools import partial
    from pathlib import Path
    from typing import TYPE_CHECKING, Annotated, Any

    import typer
    from rich.markup import escape

    from report import command as report_command
    from report.keys import keys
    from resnet import Interrupted, UserError, terminal
    from resnet.host import addresses, quiet_start
    from resnet.study import Job, Study
    from resnet.terminal import Experiments, Options, TrackingUri, console, init, load_images, say

if TYPE_CHECKING:  # these packages take seconds to import, so functions import them when needed
    from mlflow.entities import Run

    from resnet.data import Dataset
    from resnet.store import Store

EXAMPLES = {
    "": {
        "--ladder all": "reproduce the study on CIFAR-10",
        "--ladder all --dry-run": "show network sizes, times and changes; train nothing",
        "run all": "do the same as --ladder all",
        "run --help": "show all options and more examples",
    },
    "run": {
        "all": "reproduce the study on CIFAR-10",
        "all,vgg --profile quick": "train on small images in minutes, without a download",
        "5,vgg --data cifar.zip": "train on the images of an archive or a folder",
        "2 --set training.epochs=2,5": "train rung 2 twice: for 2 and for 5 epochs",
        "all --seeds 0-4 --jobs 5": "train 25 runs, five at a time",
    },
    "ablate": {
        "4": "train rung 3 with every subset of rung 4's changes",
        "assumed --seeds 0-4": "try alternatives to assumed values, with five seeds",
    },
    "plan": {"all": "plan the whole ladder", "all --timing": "also time some training steps"},
    "keys": {"training": "list all training keys", "training.optimizer": "list optimizer settings"},
    "init": {"mine": "write a small study to the folder mine/"},
    "record": {"": "record all finished runs"},
    "restore": {"": "import the records into mlflow.db"},
    "report": report_command.EXAMPLES,
    "ui": {"": "show your runs, or recorded runs if you have none", "--no-open": "open no browser"},
}
COMMANDS = {  # these commands take the same options
    "run": "Trains rungs of the ladder. Skips finished runs and resumes interrupted ones.",
    "ablate": "Trains a rung with subsets of its changes, or with alternatives to assumed values.",
    "plan": "Shows what 'run' would train, with network sizes, times and each rung's changes.",
}


def _command(name: str) -> Callable[..., None]:
    def command(**given: Any) -> None:
        options = Options(**given | {"ablate": given["ablate"] or name == "ablate"})
        if name == "plan" or options.dry_run or options.timing:
            _plan(options)
        else:
            _train(options)

    # Typer derives the options from the signature
    command.__signature__ = inspect.signature(Options)  # type: ignore[attr-defined]
    return command


def record(experiments: Experiments = None, tracking_uri: TrackingUri = None) -> None:
    """Writes finished runs of the full profile to results/, as JSON files.

    Writes the newest run of each configuration and seed. Existing records stay unchanged.
    """
    study = Study.open(experiments)
    written: set[Path] = set()
    failed = False
    with _store_failures(tracking_uri):
        with console.status("starting"):
            from resnet import records
            from resnet.store import connect

            store = connect(tracking_uri, study, create=False)
        for run in records.recordable(store):
            try:
                path = study.results / records.key_of(run).file
                if path not in written:
                    say(_record(store, run, path))
                written.add(path)
            except UserError as error:  # the other runs can still be recorded
                say(f"[red]not recorded:[/red] {escape(str(error))}")
                failed = True
    if failed:
        raise typer.Exit(1)
    if not written:
        raise UserError(
            f"record: {messages.mask(store.uri)} has no finished run with the full profile and "
            "without --set. Train such a run first"
        )


def _record(store: "Store", run: "Run", path: Path) -> str:
    """Records a run unless its settings and seed are recorded already; returns a message."""
    from resnet import records

    file, this = escape(os.path.relpath(path)), f"run {run.info.run_id[:8]}"
    if not path.exists():
        records.save(records.to_record(store, run), path.parent)
        return f"recorded {this} in {file}"
    recorded = records.load(path).run_id
    if recorded == run.info.run_id:
        return f"already recorded: {this} in {file}"
    # a newer run must not replace a record just because its result is better
    return f"[yellow]kept[/yellow] {file} of run {recorded[:8]}; to record {this}, delete this file"


def restore(experiments: Experiments = None, tracking_uri: TrackingUri = None) -> None:
    """Imports the recorded runs of results/ into a separate MLflow experiment.

    Then MLflow's UI can show them. The report needs no import, because it reads results/.
    Runs that were imported before stay unchanged.
    """
    study = Study.open(experiments)
    with _store_failures(tracking_uri):
        with console.status("starting"):
            from report.presentation import mlflow_ladder
            from resnet import records
            from resnet.store import nothing_run

        found = records.load_all(study.results)
        if not found:
            raise nothing_run(study, f"there is no record in {study.results}", tracking_uri)
        store = records.connect_recorded(tracking_uri, study)
        new = mlflow_ladder.restore(store, found)
    others = "; the others had been restored before" * (new < len(found))
    say(f"{new} of {len(found)} recorded runs restored{others}")
    say(f"browse: {escape(store.study.command('ui', uri=store.uri))}")


def ui(
    open_: Annotated[
        bool,
        typer.Option("--open/--no-open", help="Open a browser if there is a display.", metavar=""),
    ] = True,
    experiments: Experiments = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Shows the runs in MLflow's UI until you press Ctrl-C.

    Prints the addresses of two pages: the list of runs in the order of the rungs,
    and a chart of the newest ladder. The browser opens the list. If the store is
    a server, the addresses lead to that server.
    """
    with console.status("opening the store"):
        from report.presentation.ui import prepare, show
    with _store_failures(tracking_uri):
        uri, pages = prepare(tracking_uri, experiments)
    show(uri, pages, open_)


def _plan(options: Options) -> None:
    from resnet.data import NAMED
    from resnet.terminal.plan import show

    due = options.due()
    with console.status("reading the claims"):
        from report.analysis import load_statements

        load_statements(options.study)  # malformed claims raise an error here
    options.set_backend(several=True)
    lanes_of = {job.row: 1 for job in due}
    asked = options.lanes if options.one_process or len(due) == 1 else 1
    if asked or os.environ.get("KERAS_BACKEND") == "jax":
        with console.status("starting"), quiet_start():
            from resnet.engines import lanes

            chosen = lanes.chosen(asked)
        for jobs in lanes.by_program(due).values():
            lanes_of |= dict.fromkeys((job.row for job in jobs), chosen or lanes.trainings(jobs))
    images = NAMED.get(options.dataset) or load_images(options.dataset, options.study.test_fraction)
    show(due, images, lanes_of, options)
    if not options.ablate:
        with console.status("computing how many seeds a verdict needs"):
            from report.presentation.summary import decidable

            table = decidable(options.study, due)
        if table:
            console.print(table)


def _train(options: Options) -> None:
    due = options.due()
    options.set_backend(several=not options.one_process)
    with console.status("starting"), quiet_start():  # the imports take seconds
        from report.analysis import load_statements
        from resnet import engines, records, training
        from resnet.store import connect
        from resnet.terminal.display import Display

        published = load_statements(options.study).published
        engine, warnings = _engine(options, due), training.device_warnings()
    for line in warnings:
        say(f"[yellow]{escape(line)}[/yellow]")
    store = connect(options.tracking_uri, options.study)  # checks the store's URI before a download
    dataset = load_images(options.dataset, options.study.test_fraction)
    courses = records.courses(store.study.results, due, dataset.fingerprint)
    if dataset.name != store.study.dataset or due[0].profile != "full" or due[0].modified:
        published = {}  # the study published nothing about other data or settings
    display = Display(console, due, published, courses)
    again = command_lines.again(store.uri)
    name = f"{'ablation' if options.ablate else 'ladder'} {options.rungs}"
    name = f"{name} · {dataset.name} · seed {options.seeds}"
    try:
        with (
            _store_failures(store.uri, f"continue with:  {again}"),
            display,
            terminal.stoppable() as should_stop,
        ):
            failures, parents = engines.run_jobs(
                due,
                dataset,
                store,
                display,
                name=name[:250],  # MLflow limits names to 250 characters
                engine=engine,
                should_stop=should_stop,
                fresh=options.fresh,
                folder=options.checkpoints,
            )
    except (Interrupted, KeyboardInterrupt):
        say(f"[yellow]interrupted;[/yellow] continue with:  {escape(again)}")
        raise typer.Exit(130) from None
    if display.idle:
        say("all of these runs are finished; nothing was trained")
    if failures:
        say(f"{failures} of {len(due)} runs failed; try again:  {escape(again)}")
    _conclude(store, parents, dataset, due)
    if failures:
        raise typer.Exit(1)


def _engine(options: Options, due: list[Job]) -> Callable | None:
    if options.one_process or (not options.ray and len(due) == 1):
        from resnet.engines import lanes

        count = lanes.chosen(options.lanes)
        return None if count == 1 else partial(lanes.run, lanes=count)
    from resnet.engines import cluster

    return partial(
        cluster.run,
        processes=options.jobs,
        address=options.ray,
        cpus=options.threads,
        gpus=options.gpus_per_run,
    )


def _conclude(store: "Store", parents: dict[str, str], dataset: "Dataset", due: list[Job]) -> None:
    """Prints the results, writes the report, and logs each ladder to its parent run in MLflow."""
    from report import analysis
    from report.presentation import mlflow_ladder, output, summary

    out = store.checkpoints.parent / "reports" / store.study.name
    modified, *others = parents  # a sweep has one parent run per combination of values
    try:
        with console.status("writing the report"):
            content = analysis.load(
                store.uri,
                store.study,
                compare=others,
                profile=due[0].profile,
                modified=modified,
                dataset=dataset.fingerprint,
            )
            output.write(content, out)
            for ladder in (content, *content.compared):
                if parent_id := parents[ladder.run_set.modified]:
                    mlflow_ladder.attach(store, parent_id, ladder, out)
    except UserError as error:
        raise UserError(f"the runs are stored, but the report failed: {error}") from None
    summary.trained(content, due, console)
    say(f"report: {escape(command_lines.typed(out / output.PAGE))}")
    say(f"browse: {escape(store.study.command('ui', uri=store.uri))}")


@contextlib.contextmanager
def _store_failures(uri: str | None, way_out: str = "try again") -> Iterator[None]:
    """Turns exceptions caused by an unreachable store or a full disk into a one-line UserError."""
    from resnet.store import FAILURES

    try:
        yield
    except FAILURES as error:
        reason = f"{messages.mask(uri or addresses.DEFAULT_URI)}: {messages.mask(error)[:300]}"
        raise UserError(f"{reason}. Nothing is lost; {way_out}") from None


def _as_command(words: list[str]) -> list[str]:
    """Rewrites ``--ladder X`` and ``--ablate X`` as ``run X`` and ``ablate X``."""
    if words[:1] and words[0].startswith("-"):  # there is no command
        for i, word in enumerate(words):
            option, equals, rungs = word.partition("=")
            if option in ("--ladder", "--ablate"):
                rest = [rungs, *words[i + 1 :]] if equals else words[i + 1 :]
                return ["run" if option == "--ladder" else "ablate", *words[:i], *rest]
    return words


def _examples(name: str) -> str:
    examples = {words or "(no options)": about for words, about in EXAMPLES[name].items()}
    width = max(map(len, examples))
    start = escape(command_lines.command("ladder", *filter(None, [name])))
    lines = [f"[bold]Examples[/bold] to type after  {start}"]
    lines += [f"{escape(words):<{width}}  {about}" for words, about in examples.items()]
    if name in ("run", "ablate", "plan"):
        lines += ["", f"[bold]Rungs[/bold]  {', '.join(Study.open().files)}"]
        command = escape(command_lines.command("ladder", "keys"))
        lines += ["", f"[bold]Keys of --set[/bold] are listed by  {command}"]
    return "\n".join(lines)


def _app() -> typer.Typer:
    app = typer.Typer(
        epilog=_examples(""),
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def about() -> None:
        """Reproduces a study's ladder of five experiments: 72.3 % to 89.2 % accuracy on CIFAR-10.

        Each experiment is called a rung. MLflow stores all runs. Finished runs
        are skipped, and interrupted runs are resumed.
        """

    for name, text in COMMANDS.items():
        app.command(name, help=text, epilog=_examples(name))(_command(name))
    for command in (keys, init, record, restore, report_command.report, ui):
        app.command(epilog=_examples(command.__name__))(command)
    return app


def entry() -> None:
    """Runs the program ``ladder``."""
    terminal.run(lambda: _app()(_as_command(sys.argv[1:])))


if __name__ == "__main__":
    entry()
