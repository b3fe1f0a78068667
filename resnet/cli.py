"""What both command lines share: consoles, the form of their help, and how a mistake ends."""

import errno
import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from typer.core import TyperCommand, TyperOption

from resnet import UserError, shell

NARROWEST = 80
"""Columns below which tables would lose theirs."""

if not os.environ.get("COLUMNS", "").strip("0 "):  # rich and click would take it at its word
    os.environ.pop("COLUMNS", None)


class _Console(Console):
    """One that a narrow terminal cuts nothing from, and that ends with what reads from it.

    Where lines are too long for the terminal it breaks them; then nothing is drawn in place.
    """

    @property
    def size(self) -> ConsoleDimensions:
        width, height = super().size
        return ConsoleDimensions(max(width, NARROWEST), height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    @property
    def is_terminal(self) -> bool:
        width = self._width or shutil.get_terminal_size().columns
        return super().is_terminal and width >= NARROWEST

    def on_broken_pipe(self) -> None:
        close_output()
        if not callable(signal.getsignal(signal.SIGINT)):  # ignored, as in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)


console = _Console()
errors = _Console(stderr=True)


def close_output() -> None:
    """What is still to be printed goes nowhere: nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow tracking store.",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        show_default="mlflow.db at the project's top",
    ),
]


class _Command(TyperCommand):
    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)
        if option:
            option.metavar = ""  # a flag takes no <bool>
        return option

    def invoke(self, ctx: Any) -> Any:
        for option in self.params:
            value = ctx.params.get(option.name)
            values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            given = ctx.get_parameter_source(option.name).name == "COMMANDLINE"
            if given and option.name != "modified" and any(not str(v).strip() for v in values):
                raise UserError(f"{option.opts[0]}: is empty; give a value or leave it out")
        return super().invoke(ctx)


def app(
    main: Callable, words: tuple[str, ...], examples: dict[str, str], *more: str
) -> typer.Typer:
    """A command line.

    Args:
        main: the command.
        words: how Python runs it, see :func:`resnet.shell.command`.
        examples: what is added to that, and what it does.
        *more: paragraphs of rich markup to end the help with.

    Returns:
        The Typer application, for :func:`run`.
    """
    width = max(map(len, examples))
    lines = [f"{escape(example):<{width}}  {told}".rstrip() for example, told in examples.items()]
    heading = f"[bold]Examples, after[/bold]  {escape(shell.command(*words))}"
    made = typer.Typer(
        add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
    )
    made.command(
        cls=_Command,
        # Typer would keep a paragraph's lines as they are
        help=re.sub(r"(?<!\n)\n *(?!\n)", " ", main.__doc__ or ""),
        epilog="\n\n".join(["\n".join([heading, *lines]), *more]),
        context_settings={"help_option_names": ["-h", "--help"]},
    )(main)
    return made


def flag(name: str, told: str) -> typer.models.OptionInfo:
    """An option that takes no value."""
    return typer.Option(name, help=told, metavar="")


def say(text: str) -> None:
    """Prints one line of rich markup, not broken: it may be a command to copy."""
    console.print(text, highlight=False, soft_wrap=True)


def run(command: Callable[[], None]) -> None:
    """Runs a command line; a user's mistake is one line on stderr and exit code 2.

    A pipe that nobody reads any more ends it as Ctrl-C does, with exit code 130.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where it can say but ASCII, the rest is a ?
            stream.reconfigure(errors="replace")
    try:
        try:
            Path.home()
        except RuntimeError:
            raise UserError("there is no home folder: set HOME to one of yours") from None
        try:
            with shell.packages():
                command()
        finally:
            sys.stdout.flush()  # what cannot be written is told here, not as Python ends
    except UserError as error:
        text = escape(shell.hide(str(error)))
        errors.print(f"[red]error:[/red] {text}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        close_output()
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        errors.print(f"[red]error:[/red] {error}: make room and try again", soft_wrap=True)
        close_output()
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
