"""Loading images from a disk or the internet, with a progress bar."""

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import Progress

from resnet.terminal.console import console, say

if TYPE_CHECKING:  # what takes a while to import is imported when it is needed
    from resnet.data import Dataset


def load_images(data: str, test_fraction: float | None) -> "Dataset":
    """Loads images as :func:`resnet.data.load` does, and shows a progress bar."""
    from resnet.data import load

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
