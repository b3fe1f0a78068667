"""The console, and how a mistake, Ctrl-C or a closed pipe ends the program."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console
from rich.markup import escape

from resnet import UserError
from resnet.host import command_lines, messages


class _Console(Console):
    """A console whose closed pipe stops a training as Ctrl-C does."""

    def on_broken_pipe(self) -> None:
        close_output()
        signal.raise_signal(signal.SIGINT)


# A path, a title or a command may contain :x:, which is no emoji.
console = _Console(emoji=False)
_errors = _Console(stderr=True, emoji=False)


def close_output() -> None:
    """Sends further output to the null device, because nobody reads it."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())


def say(text: str) -> None:
    """Prints one line of rich markup without breaking it: the line may be a command to copy."""
    console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether Ctrl-C or SIGTERM came; a second one raises."""
    signals: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)
        say("[yellow]stopping after this step; press Ctrl-C again to stop at once[/yellow]")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(command: Callable[[], None]) -> None:
    """Runs a command line; a user's mistake is one line on stderr and exit code 2.

    Ctrl-C and a pipe that nobody reads end it with exit code 130.
    """
    try:
        with command_lines.packages():
            command()
    except UserError as error:
        text = escape(messages.hide(str(error)))
        _errors.print(f"[red]error:[/red] {text}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        close_output()
        sys.exit(130)
