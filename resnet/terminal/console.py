"""The console, and how the program ends after a user's mistake, Ctrl-C or a closed pipe."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from resnet import UserError
from resnet.host import command_lines, messages

if TYPE_CHECKING:
    from resnet.data import Dataset


class _Console(Console):
    """A console that stops the training, as Ctrl-C does, if the output pipe is closed."""

    def on_broken_pipe(self) -> None:
        close_output()
        signal.raise_signal(signal.SIGINT)


# With emoji=True, rich would turn ":x:" in a path, a title or a command into an emoji.
console = _Console(emoji=False)
_errors = _Console(stderr=True, emoji=False)


def close_output() -> None:
    """Discards further output, because the program that read it has ended."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())


def say(text: str) -> None:
    """Prints one line of rich markup without wrapping it, so that users can copy commands."""
    console.print(text, highlight=False, soft_wrap=True)


def load_images(data: str, test_fraction: float | None) -> "Dataset":
    """Loads images as :func:`resnet.data.load` does, and shows a progress bar."""
    from resnet.data import load  # this import takes a while

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(f"loading {data}"), total=None)

        def show(action: str, done: int, total: int) -> None:
            bar.update(task, description=escape(action), completed=done, total=total or None)

        dataset = load(data, show, lambda line: say(escape(line)), test_fraction)
    say(
        f"[bold]{escape(dataset.name)}[/bold]: {len(dataset.x_train):,} training and "
        f"{len(dataset.x_test):,} test images, {len(dataset.classes)} classes, "
        f"fingerprint {dataset.fingerprint[:12]}"
    )
    return dataset


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yields a function that checks for Ctrl-C or SIGTERM. A second signal interrupts at once."""
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
    """Runs a command line. After a UserError, prints its message and exits with code 2.

    After Ctrl-C or a closed pipe, exits with code 130.
    """
    try:
        with command_lines.packages():
            command()
    except UserError as error:
        text = escape(messages.hide(str(error)))
        _errors.print(f"[red]error:[/red] {text}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        close_output()
        sys.exit(130)
