"""What a ladder shows in a terminal while it runs; plain lines where there is no terminal."""

import time

import mlflow
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from resnet import ladder, training


class Display(ladder.Display):
    """A live bar for the rung in training, and a line for whatever is worth keeping.

    Args:
        console: where to write.
        jobs: all of the invocation, in order.
    """

    def __init__(self, console: Console, jobs: list[ladder.Job]):
        self.console = console
        self.jobs = jobs
        self.job = jobs[0]
        self.began = 0.0
        self.task: TaskID | None = None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[figures]}"),
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

    def _say(self, text: str, job: ladder.Job | None = None) -> None:
        job = job or self.job
        seed = f" · seed {job.seed}" if len({j.seed for j in self.jobs}) > 1 else ""
        number = self.jobs.index(job) + 1
        self.console.print(
            f"[dim]{number}/{len(self.jobs)}[/dim] [bold]{escape(job.experiment.title)}[/bold]"
            f"{seed}  {text}",
            highlight=False,
            soft_wrap=not self.console.is_terminal,
        )

    def started(self, job: ladder.Job) -> None:
        self.job = job
        self.began = time.monotonic()
        if not self.console.is_terminal:
            self._say(f"training, at most {job.experiment.training.epochs} epochs")
        self.task = self.bar.add_task(escape(job.experiment.title), total=None, figures="compiling")

    def resumed(self, epoch: int, step: int) -> None:
        self._say(f"goes on in epoch {epoch}, {step} steps into it")

    def progress(self, epoch: int, step: int, steps: int, logs: dict[str, float]) -> None:
        epochs = self.job.experiment.training.epochs
        done = (epoch - 1) * steps + step
        task = self.bar.tasks[self.bar.task_ids.index(self.task)]
        if task.total is None:
            self.bar.reset(self.task, total=epochs * steps, completed=done)
        speed = (task.speed or 0) * self.job.experiment.training.batch_size
        self.bar.update(
            self.task,
            completed=done,
            figures=(
                f"epoch {epoch}/{epochs} step {step}/{steps} · {speed:.0f} img/s · "
                f"loss {logs['loss']:.3f} acc {logs['accuracy']:.3f} "
                f"lr {logs['learning_rate']:.2g} ·"
            ),
        )

    def epoch(self, history: list[dict[str, float]]) -> None:
        if history and not self.console.is_terminal:
            record = history[-1]
            self._say(
                f"epoch {record['epoch']}/{self.job.experiment.training.epochs}: "
                f"loss {record['loss']:.4f}, accuracy {record['accuracy']:.4f}, "
                f"val_loss {record['val_loss']:.4f}, val_accuracy {record['val_accuracy']:.4f}, "
                f"{record['images_per_second']:.0f} images/s"
            )

    def event(self, epoch: int, text: str) -> None:
        self._say(f"epoch {epoch}: {text}")

    def skipped(self, job: ladder.Job, run: mlflow.entities.Run) -> None:
        accuracy = run.data.metrics.get("test_accuracy", float("nan"))
        self._say(
            f"already finished, test accuracy {accuracy:.2%} (run {run.info.run_id[:8]}; "
            "--fresh trains it again)",
            job,
        )

    def waiting(self, job: ladder.Job) -> None:
        self._say("is being trained by another process; waiting for it", job)

    def finished(self, job: ladder.Job, outcome: training.Outcome) -> None:
        self._say(
            f"[green]test accuracy {outcome.test_accuracy:.2%}[/green] after "
            f"{len(outcome.history)} epochs, {time.monotonic() - self.began:.0f} s"
        )
        self.bar.remove_task(self.task)

    def failed(self, job: ladder.Job, error: Exception) -> None:
        reason = " ".join(str(error).split())[:300]
        self._say(f"[red]failed:[/red] {escape(type(error).__name__)}: {escape(reason)}")
        self.bar.remove_task(self.task)
