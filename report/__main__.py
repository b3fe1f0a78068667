"""The command line: ``python -m report`` turns what MLflow holds into a page."""

from resnet import shell

with shell.packages():
    import webbrowser
    from functools import partial
    from pathlib import Path
    from typing import Annotated, Any

    import typer
    from rich.markup import escape

    from resnet import UserError, cli
    from resnet.cli import console, say
    from resnet.shell import DEFAULT_URI, EXPERIMENT

EXAMPLES = {
    "--open": "the page, in reports/latest, shown",
    "--summary": "progression and claims, here in the terminal",
    "--profile quick": "the runs of  make quick",
    "--recorded": "the runs that  runner.py --restore  brought",
    "--dataset 9acbe397": "by the beginning of a fingerprint, CIFAR-10's",
    "--compare training.epochs=2": "beside the ladder, runs with that --set",
}


def main(
    out: Annotated[
        Path,
        typer.Option(help="Folder to write; an earlier report there is replaced.", metavar="DIR"),
    ] = Path("reports/latest"),
    open_: Annotated[bool, cli.flag("--open", "Show the page in the browser.")] = False,
    summary: Annotated[bool, cli.flag("--summary", "Print the tables; write nothing.")] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="A dataset's name, or the beginning of its fingerprint.",
            metavar="NAME",
            show_default="the one with the most rungs",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="full, quick, ...", metavar="NAME", show_default="full, if there are such runs"
        ),
    ] = None,
    modified: Annotated[
        str | None,
        typer.Option(
            help="Runs with these --set overrides; '' for none.",
            metavar="KEY=VALUE ...",
            show_default="none, if there are such runs",
        ),
    ] = None,
    recorded: Annotated[
        bool | None,
        typer.Option(
            "--recorded/--own",
            help="Runs restored from results/, or your own.",
            metavar="",
            show_default="those with more rungs, your own if equal",
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Another set beside: its --set overrides, profile, dataset, recorded, own, or its "
            "whole name as the page lists it; may be repeated.",
            metavar="SET",
        ),
    ] = None,
    experiment: Annotated[
        str, typer.Option(help="MLflow experiment.", metavar="NAME")
    ] = EXPERIMENT,
    tracking_uri: cli.TrackingUri = None,
) -> None:
    """Writes the report: does the ladder hold, claim by claim, with evidence.

    It reads MLflow and changes nothing there. Runs of different datasets, profiles or
    modifications are never mixed, nor are recorded runs and your own; the page says which it
    shows and which others there are. --compare sets others beside, in a section of their own.
    """
    chosen: dict[str, Any] = {
        "dataset": dataset,
        "profile": profile,
        "modified": modified,
        "recorded": recorded,
        "compare": compare or (),
    }
    with console.status("reading runs"):  # the imports take seconds
        from report import analysis, output

        if not summary:
            output.refuse_foreign(out)
        content = analysis.load(tracking_uri or DEFAULT_URI, experiment=experiment, **chosen)
        if not summary:
            output.write(content, out)
    if summary:
        from report.summary import show

        show(content, console)
        return
    path = (out / output.PAGE).resolve()
    say(f"wrote {escape(str(path))}")
    say(f"[dim]{escape(content.selection.shown.label)}[/dim]")
    for other in content.compared:
        say(f"[dim]compared with {escape(other.selection.shown.label)}[/dim]")
    if open_ and not webbrowser.open(path.as_uri()):
        raise UserError(f"--open: there is no browser to open {path} with")


app = cli.app(main, ("-m", "report"), EXAMPLES)
entry = partial(cli.run, app)

if __name__ == "__main__":
    entry()
