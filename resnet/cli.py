"""What both command lines share: consoles, the form of their help, and how a mistake ends."""

import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand, TyperOption

from resnet import UserError, shell

console = Console()
errors = Console(stderr=True)

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
    """Runs a command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        with shell.packages():
            command()
    except UserError as error:
        text = escape(shell.hide(str(error)))
        errors.print(f"[red]error:[/red] {text}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
