"""The command line: ``python -m report`` turns what MLflow holds into a page."""

import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from report import DEFAULT_URI
from resnet import UserError

console = Console()
errors = Console(stderr=True)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

EPILOG = """
[bold]Examples[/bold]

  python -m report --open                      the page, in reports/latest, shown

  python -m report --summary                   progression and claims, here in the terminal

  python -m report --profile quick             the runs of  make quick

  python -m report --recorded                  the runs that  runner.py --restore  brought

  python -m report --dataset ca52ba6d          by the beginning of a fingerprint
"""


@app.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main(
    out: Annotated[
        Path, typer.Option(help="Folder to write; an earlier report there is replaced.")
    ] = Path("reports/latest"),
    open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print the tables; write nothing.")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="A dataset's name, or the beginning of its fingerprint.",
            show_default="the one with the most rungs",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="full, quick, ...", show_default="full, if there are such runs"),
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
            show_default="those with more rungs, your own if equal",
        ),
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "resnet-ladder",
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="MLflow tracking store.",
            envvar="MLFLOW_TRACKING_URI",
            show_default="sqlite:///mlflow.db at the project's top",
        ),
    ] = None,
) -> None:
    """Writes the report: does the ladder hold, claim by claim, with evidence.

    It reads MLflow and changes nothing there. Runs of different datasets, profiles or
    modifications are never mixed, nor are recorded runs and your own; the page says which it
    shows and which others there are.
    """
    chosen = {"dataset": dataset, "profile": profile, "modified": modified, "recorded": recorded}
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
    console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)
    console.print(escape(content.selection.shown.label), style="dim", highlight=False)
    if open_ and not webbrowser.open(path.as_uri()):
        raise UserError(f"--open: there is no browser to open {path} with")


def entry(command: Callable[[], None] = app) -> None:
    """Runs a command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        command()
    except UserError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    entry()
