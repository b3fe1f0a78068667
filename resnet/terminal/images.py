"""Loading images from a disk or the internet, with a progress bar."""

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from resnet.terminal.console import console, say

if TYPE_CHECKING:  # what takes a while to import is imported when it is needed
    from resnet.data import Dataset


def load_images(data: str, test_fraction: float | None) -> "Dataset":
    """Loads images as :func:`resnet.data.load` does, and shows a progress bar."""
    from resnet.data import load

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(f"loading {data}", total=None)
        dataset = load(
            data,
            lambda action, done, total: bar.update(
                task, description=action, completed=done, total=total or None
            ),
            lambda line: bar.console.print(escape(line), highlight=False),
            test_fraction,
        )
    say(
        f"[bold]{escape(dataset.name)}[/bold]: {len(dataset.x_train):,} training and "
        f"{len(dataset.x_test):,} test images, {len(dataset.classes)} classes, "
        f"fingerprint {dataset.fingerprint[:12]}"
    )
    return dataset
