"""What a ladder shows in a terminal while it runs; plain lines where there is no terminal."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from resnet import ladder
from resnet.config import Job


class Display(ladder.Display):
    """A live bar for each job in training, and a line for whatever is worth keeping.

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

    def started(self, job: Job) -> None:
        self.began[self._key(job)] = time.monotonic()
        if not self.console.is_terminal:
            self._say(job, f"training, at most {job.experiment.training.epochs} epochs")
        self.tasks[self._key(job)] = self.bar.add_task(
            self._title(job), total=None, figures="compiling"
        )

    def resumed(self, job: Job, epoch: int, step: int) -> None:
        self._say(job, f"goes on in epoch {epoch}, {step} steps into it")

    def progress(self, job: Job, epoch: int, step: int, steps: int, logs: dict) -> None:
        training = job.experiment.training
        done = (epoch - 1) * steps + step
        task_id = self.tasks[self._key(job)]
        task = next(task for task in self.bar.tasks if task.id == task_id)
        if task.total is None:  # the clock starts when compiling is over
            self.bar.reset(task_id, total=training.epochs * steps, completed=done)
        self.bar.update(
            task_id,
            completed=done,
            figures=(
                f"epoch {epoch}/{training.epochs} step {step}/{steps} "
                f"{(task.speed or 0) * training.batch_size:.0f} img/s "
                f"loss {logs['loss']:.3f} acc {logs['accuracy']:.3f} "
                f"lr {logs['learning_rate']:.2g}"
            ),
        )

    def epoch(self, job: Job, history: list[dict[str, float]]) -> None:
        if history and not self.console.is_terminal:
            record = history[-1]
            self._say(
                job,
                f"epoch {record['epoch']}/{job.experiment.training.epochs}: "
                f"loss {record['loss']:.4f}, accuracy {record['accuracy']:.4f}, "
                f"val_loss {record['val_loss']:.4f}, val_accuracy {record['val_accuracy']:.4f}, "
                f"{record['images_per_second']:.0f} images/s",
            )

    def event(self, job: Job, epoch: int, text: str) -> None:
        self._say(job, f"epoch {epoch}: {text}")

    def skipped(self, job: Job, run_id: str, test_accuracy: float) -> None:
        self._say(
            job,
            f"already finished, test accuracy {test_accuracy:.2%} (run {run_id[:8]}; "
            "--fresh trains it again)",
        )

    def waiting(self, job: Job) -> None:
        self._say(job, "is being trained by another process; waiting for it")

    def finished(self, job: Job, summary: dict[str, float]) -> None:
        seconds = time.monotonic() - self.began[self._key(job)]
        self._say(
            job,
            f"[green]test accuracy {summary['test_accuracy']:.2%}[/green] after "
            f"{summary['epochs_run']} epochs, {seconds:.0f} s",
        )
        self.bar.remove_task(self.tasks[self._key(job)])

    def failed(self, job: Job, reason: str) -> None:
        self._say(job, f"[red]failed:[/red] {escape(' '.join(reason.split())[:300])}")
        if self._key(job) in self.tasks:
            self.bar.remove_task(self.tasks[self._key(job)])
