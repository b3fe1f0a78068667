"""The consoles, the form of every command's help, and how a mistake ends."""

import contextlib
import errno
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup, TyperOption

from resnet import UserError
from resnet.host import shell

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


# a path, a title or a command may hold :x:, which is no emoji
console = _Console(emoji=False)
errors = _Console(stderr=True, emoji=False)


def close_output() -> None:
    """Sends what is still to be printed nowhere: nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


class _Checked:
    """Of a command: a flag's help shows no type, and an option given empty is a mistake."""

    params: list

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)  # type: ignore[misc] # of the class beside
        if option:
            option.metavar = ""  # a flag takes no <bool>
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # as they were typed: of an empty path there would be the folder that one is in
        given, _, _ = self.make_parser(ctx).parse_args([*args])  # type: ignore[attr-defined]
        for option in self.params:
            value = given.get(option.name)
            values = value if isinstance(value, list) else [value]
            empty = any(isinstance(text, str) and not text.strip() for text in values)
            if empty and option.name != "modified":
                raise UserError(f"{option.opts[0]}: is empty; give a value or leave it out")
        return super().parse_args(ctx, args)  # type: ignore[misc] # of the class beside


class Command(_Checked, TyperCommand):
    """A command of the project's."""


class Group(_Checked, TyperGroup):
    """The project's command line: options of its own, or a command with its options.

    Commands are listed in the order in which they were added.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def helped(text: str, words: tuple[str, ...], examples: dict[str, str], *more: str) -> dict:
    """Returns the help of a command, as Typer takes it.

    Args:
        text: what it does, as its docstring says.
        words: how it is called, see :func:`resnet.host.shell.command`.
        examples: what is added to that, and what it does.
        *more: paragraphs of rich markup to end with.
    """
    width = max(map(len, examples))
    lines = [f"{escape(example):<{width}}  {what}".rstrip() for example, what in examples.items()]
    heading = f"[bold]Examples, after[/bold]  {escape(shell.command(*words))}"
    return {
        # Typer would keep a paragraph's lines as they are
        "help": re.sub(r"(?<!\n)\n *(?!\n)", " ", text),
        "epilog": "\n\n".join(["\n".join([heading, *lines]), *more]),
        "context_settings": {"help_option_names": ["-h", "--help"]},
    }


def flag(name: str, text: str) -> typer.models.OptionInfo:
    """Makes an option that takes no value."""
    return typer.Option(name, help=text, metavar="")


def say(text: str) -> None:
    """Prints one line of rich markup, not broken: it may be a command to copy."""
    console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Catches Ctrl-C and SIGTERM: the first makes what is yielded true, the second cuts off."""
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


def _open_streams() -> None:
    """Opens what cron and others leave closed: what is written there goes nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _check_surroundings() -> None:
    """Refuses what would end a training in hours, or an import, in a traceback.

    Raises:
        UserError: it says what is wrong.
    """
    try:
        Path.home()
    except RuntimeError:
        raise UserError("there is no home folder: set HOME to one of yours") from None
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(f"{error.strerror}: set TMPDIR to a folder that can be written") from None
    if time.gmtime().tm_year < 1980:  # a model is a zip archive, which knows no earlier time
        raise UserError(f"the clock says {time.gmtime().tm_year}: set it, and try again")
    with contextlib.suppress(ImportError):
        import pwd

        try:
            pwd.getpwuid(os.getuid())
        except KeyError:  # MLflow would warn that it does not know the user's name
            os.environ.setdefault("LOGNAME", str(os.getuid()))


def run(command: Callable[[], None]) -> None:
    """Runs a command line; a user's mistake is one line on stderr and exit code 2.

    A pipe that nobody reads any more ends it as Ctrl-C does, with exit code 130.
    """
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where it can say but ASCII, the rest is a ?
            stream.reconfigure(errors="replace")
    try:
        _check_surroundings()
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
