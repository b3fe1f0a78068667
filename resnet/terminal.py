"""What a ladder shows in a terminal while it runs; plain lines where there is no terminal."""

import contextlib
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from resnet import events
from resnet.config import Job


class Display:
    """A listener: a live bar for each job in training, and a line for what is worth keeping.

    Args:
        console: where to write.
        jobs: all of the invocation, in order.
    """

    def __init__(self, console: Console, jobs: list[Job]):
        self.console = console
        self.numbers = {self._key(job): number for number, job in enumerate(jobs, 1)}
        self.several_seeds = len({job.seed for job in jobs}) > 1
        self.began: dict[tuple, float] = {}
        self.tasks: dict[tuple, TaskID] = {}
        self.bar = Progress(
            TextColumn("[bold]{task.description}[/bold]\n[dim]{task.fields[figures]}[/dim]"),
            BarColumn(bar_width=8),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def __call__(self, event: events.Event) -> None:
        """Shows what happened."""
        if isinstance(event, events.Progress):
            self._progress(event)
        elif text := self._line(event):
            self._say(event.job, text)
        key = self._key(event.job)
        if isinstance(event, events.Started):
            self.began[key] = time.monotonic()
            if key not in self.tasks:
                self.tasks[key] = self.bar.add_task(
                    self._title(event.job), total=None, figures="compiling"
                )
        elif isinstance(event, events.Finished | events.Skipped | events.Failed):
            with contextlib.suppress(KeyError):
                self.bar.remove_task(self.tasks.pop(key))

    @staticmethod
    def _key(job: Job) -> tuple:
        return job.experiment.name, job.seed

    def _title(self, job: Job) -> str:
        seed = f" · seed {job.seed}" if self.several_seeds else ""
        return f"{escape(job.experiment.title)}{seed}"

    def _say(self, job: Job, text: str) -> None:
        self.console.print(
            f"[dim]{self.numbers[self._key(job)]}/{len(self.numbers)}[/dim] "
            f"[bold]{self._title(job)}[/bold]  {text}",
            highlight=False,
            soft_wrap=not self.console.is_terminal,
        )

    def _line(self, event: events.Event) -> str:
        epochs = event.job.experiment.training.epochs
        match event:
            case events.Started() if not self.console.is_terminal:
                return f"training, at most {epochs} epochs"
            case events.Resumed(_, epoch, step, _, differs):
                changes = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in differs.items())
                elsewhere = f"; not as it began, so its bits may differ: {escape(changes)}"
                return f"goes on in epoch {epoch}, {step} steps into it{elsewhere * bool(differs)}"
            case events.Epoch(_, [*_, last]) if not self.console.is_terminal:
                return (
                    f"epoch {last['epoch']}/{epochs}: "
                    f"loss {last['loss']:.4f}, accuracy {last['accuracy']:.4f}, "
                    f"val_loss {last['val_loss']:.4f}, val_accuracy {last['val_accuracy']:.4f}, "
                    f"{last['images_per_second']:.0f} images/s"
                )
            case events.RateDropped(_, epoch, before, after):
                return f"epoch {epoch}: learning rate {before:.3g} -> {after:.3g}"
            case events.Stopped(_, epoch, monitor, best):
                return f"epoch {epoch}: early stopping: {monitor} was best in epoch {best}"
            case events.Told(_, text):
                return escape(text)
            case events.Skipped(_, run_id, accuracy):
                return (
                    f"already finished, test accuracy {accuracy:.2%} (run {run_id[:8]}; "
                    "--fresh trains it again)"
                )
            case events.Finished(job, summary):
                seconds = time.monotonic() - self.began.get(self._key(job), time.monotonic())
                return (
                    f"[green]test accuracy {summary['test_accuracy']:.2%}[/green] after "
                    f"{summary['epochs_run']} epochs, {seconds:.0f} s"
                )
            case events.Failed(_, reason):
                return f"[red]failed:[/red] {escape(reason[:300])}"
        return ""

    def _progress(self, event: events.Progress) -> None:
        training, logs = event.job.experiment.training, event.logs
        done = (event.epoch - 1) * event.steps + event.step
        task = next(
            (task for task in self.bar.tasks if task.id == self.tasks.get(self._key(event.job))),
            None,
        )
        if task is None:
            return  # of a worker that was lost and whose job is over
        if task.total is None:  # the clock starts when compiling is over
            self.bar.reset(task.id, total=training.epochs * event.steps, completed=done)
        self.bar.update(
            task.id,
            completed=done,
            figures=(
                f"epoch {event.epoch}/{training.epochs} step {event.step}/{event.steps} "
                f"{(task.speed or 0) * training.batch_size:.0f} img/s "
                f"loss {logs['loss']:.3f} acc {logs['accuracy']:.3f} "
                f"lr {logs['learning_rate']:.2g}"
            ),
        )
