"""Shows the progress of runs: as a table in a terminal, and as plain lines in a pipe."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from resnet import events
from resnet.host.messages import count, duration
from resnet.records import Course, diverged
from resnet.study import Job

_WIDTHS = {"epoch": 7, "val": 7, "best": 7, "test": 7, "published": 9}
_MARKS = {"waiting": "·", "running": "▸", "finished": "✓", "skipped": "✓", "failed": "✗"}
_STYLES = {"waiting": "dim", "running": "bold", "failed": "red"}


class _Field(ProgressColumn):
    def __init__(self, name: str, width: int, **column: Any):
        super().__init__(Column(width=width, no_wrap=True, overflow="ellipsis", **column))
        self.name = name

    def render(self, task: Task) -> Text:
        state, text = task.fields["state"], task.fields[self.name]
        return Text(_MARKS[state] if self.name == "state" else text, _STYLES.get(state, ""))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _accuracies(history: events.History) -> list[float]:
    return [record["val_accuracy"] for record in history]


def _validated(task: Task, history: events.History) -> dict[str, Any]:
    if not history:
        return {}
    *_, last = accuracies = _accuracies(history)
    epoch = f"{len(history)}/{task.total:g}"
    return {"epoch": epoch, "val": _percent(last), "best": _percent(max(accuracies))}


class Display(Progress):
    """A listener that shows one row per job and prints a line for each important event.

    ``published`` maps names of experiments to published accuracies. It is empty if the images or
    settings are not those of the study. ``courses`` maps hashes of experiments to recorded curves;
    see :func:`resnet.records.courses`.
    """

    def __init__(
        self,
        console: Console,
        jobs: list[Job],
        published: Mapping[str, float] | None = None,
        courses: Mapping[str, Course] | None = None,
    ):
        self.began, self.first_step = console.get_time(), 0.0
        seeds = len({job.seed for job in jobs}) > 1
        widths = {"seed": max(len(str(job.seed)) for job in jobs), **_WIDTHS}
        shown = {"seed": seeds, "published": bool(published)}
        columns = {name: max(n, 4) for name, n in widths.items() if shown.get(name, True)}
        room = console.width - sum(width + 1 for width in columns.values()) - len("· ")
        label = max(min(max(cell_len(job.label) for job in jobs), room), 10)
        super().__init__(
            _Field("state", 1),
            _Field("label", label, header="rung"),
            *(_Field(name, n, header=name, justify="right") for name, n in columns.items()),
            console=console,
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task_of: dict[tuple, Task] = {}
        for job in jobs:
            number = self.add_task(
                f"{job.title}{f' · seed {job.seed}' * seeds}",
                total=job.experiment.training.epochs,
                state="waiting",
                label=job.label,
                seed=str(job.seed),
                epoch=f"0/{job.experiment.training.epochs}",
                val="",
                best="",
                test="waiting",
                published=_percent((published or {}).get(job.experiment.name)),
                course=(courses or {}).get(job.experiment.hash()),
                off_course=False,
                resumed=0,  # number of epochs loaded from checkpoints
                doing="",
                since=None,  # start time of a phase other than training
            )
            self.task_of[job.row, job.seed] = self._tasks[number]

    @property
    def idle(self) -> bool:
        return all(task.fields["state"] == "skipped" for task in self.tasks)

    def __call__(self, event: events.Event) -> None:
        task = self.task_of[event.job.row, event.job.seed]
        self._advance(task, event)
        self._print(task, event, self._line(task, event))
        if isinstance(event, events.Epoch):
            self._print(task, event, self._warning(task, event))

    def _advance(self, task: Task, event: events.Event) -> None:
        now, change = self.get_time(), partial(self.update, task.id)
        match event:
            case events.Started():
                self.reset(task.id)
                change(state="running", test="", doing="compiling", since=now)
            case events.Resumed(_, _, history):
                self.reset(task.id, completed=len(history))
                change(resumed=len(history), **_validated(task, history))
            case events.Progress(job, epoch, step, steps, logs):
                self.first_step = self.first_step or now
                rate = (task.speed or 0) * steps * job.experiment.training.batch_size
                change(
                    completed=epoch - 1 + step / steps,
                    epoch=f"{epoch}/{task.total:g}",
                    doing=f"step {step}/{steps}, {rate:.0f} images/s, "
                    f"loss {logs['loss']:.3f}, accuracy {_percent(logs['accuracy'])}, "
                    f"rate {logs['learning_rate']:.2g}",
                    since=None,
                )
            case events.Phase(_, phase, done, total):
                same = task.fields["doing"].startswith(phase)
                doing = f"{phase} {done}/{total}" if total else phase
                change(doing=doing, since=task.fields["since"] if same else now)
            case events.Epoch(_, history):
                change(completed=len(history), doing="", since=None, **_validated(task, history))
            case events.Skipped(_, _, accuracy):
                change(state="skipped", total=0, epoch="", test=_percent(accuracy))
            case events.Finished(_, summary):
                accuracy = summary["test_accuracy"]
                change(state="finished", total=task.completed, test=_percent(accuracy))
            case events.Failed():
                change(state="failed", total=task.completed, test="failed")

    def _print(self, task: Task, event: events.Event, text: str) -> None:
        if text:
            title = f"[bold]{escape(task.description)}[/bold]  "
            if isinstance(event, events.Epoch) and not self.disable:
                title = ""  # without a title, the line fits in 80 columns
            number = f"[dim]{task.id + 1}/{len(self.tasks)}[/dim]"
            line = f"{number} {title}{text}"
            self.console.print(line, highlight=False, soft_wrap=self.disable)

    def _line(self, task: Task, event: events.Event) -> str:
        epochs = event.job.experiment.training.epochs
        match event:
            case events.Started(_, lanes):
                lane = f", in one of {lanes} lanes" * (lanes > 1)
                return f"training, at most {count(epochs, 'epoch')}{lane}"
            case events.Resumed(_, step, history, shared, differs, due):
                notes = [f"shares {count(shared, 'epoch')} with another run"] * bool(shared)
                resuming = f"resumes in epoch {len(history) + 1} after {count(step, 'step')}"
                notes += [resuming if due else "nothing left to train"]
                if differs:
                    changes = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in differs.items())
                    notes += [f"changes may alter the results' last digits: {escape(changes)}"]
                return "; ".join(notes)
            case events.Epoch(_, [*_, last] as history):
                course = task.fields["course"]
                span = course.recorded(len(history)) if course else None
                recorded = f", recorded: {100 * span[0]:.1f} to {_percent(span[1])}" if span else ""
                losses = f"loss {last['loss']:.3f}, val {last['val_loss']:.3f}; "
                rate = f", {last['images_per_second']:.0f} images/s"
                return (
                    f"epoch {last['epoch']}/{epochs}: {losses * (self.disable or not recorded)}"
                    f"accuracy {_percent(last['accuracy'])}, val {_percent(last['val_accuracy'])}"
                    f"{rate * self.disable}{recorded}"
                )
            case events.RateDropped(_, epoch, before, after):
                return f"epoch {epoch}: learning rate {before:.3g} -> {after:.3g}"
            case events.Stopped(_, epoch, monitor, best):
                return f"early stopping after epoch {epoch}: {monitor} was best in epoch {best}"
            case events.Notice(_, text):
                return escape(text)
            case events.Skipped(_, run_id, accuracy):
                return (
                    f"already finished, test accuracy {accuracy:.2%} (run {run_id[:8]}; "
                    "--fresh trains it again)"
                )
            case events.Finished(_, summary):
                return (
                    f"[green]test accuracy {summary['test_accuracy']:.2%}[/green] after "
                    f"{count(summary['epochs_run'], 'epoch')}, {duration(summary['train_seconds'])}"
                )
            case events.Failed(_, reason):
                return f"[red]failed:[/red] {escape(reason[:300])}"
        return ""

    def _warning(self, task: Task, event: events.Epoch) -> str:
        """Returns a warning if the run has just diverged or left the range of recorded runs."""
        accuracies, course = _accuracies(event.history), task.fields["course"]
        if diverged(record["loss"] for record in event.history) == len(accuracies):
            return "[red]diverged:[/red] the loss is not finite; further training cannot help"
        warned, off_course = task.fields["off_course"], bool(course and course.off(accuracies))
        self.update(task.id, off_course=off_course)
        if warned or not off_course:
            return ""
        low, high = course.expected(len(accuracies))
        return (
            "[yellow]off course:[/yellow] for three epochs the validation accuracy was outside "
            "the range expected from recorded runs (this range is now "
            f"{_percent(low)} to {_percent(high)}); check the data, --set and library versions"
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yields as many rows as fit in the terminal, then a bar and the time left."""
        if not (tasks := self.tasks):  # rich calls this before tasks exist
            return
        now = self.get_time()
        for number, task in enumerate(self._visible(tasks)):
            table = self.make_tasks_table([task])
            table.show_header = number == 0
            yield table
            if task.fields["state"] == "running" and (doing := task.fields["doing"]):
                since = task.fields["since"]
                time = "" if since is None else f", {duration(now - since)}"
                yield Text(f"    {doing}{time}", "cyan", no_wrap=True)
        total, done = sum(t.total or 0 for t in tasks), sum(t.completed for t in tasks)
        yield Padding(ProgressBar(total, done), 0)  # the padding adds the missing line end
        over = sum(task.fields["state"] not in ("waiting", "running") for task in tasks)
        notes = [f"{over} of {len(tasks)} done in {duration(now - self.began)}"]
        trained = done - sum(task.fields["resumed"] for task in tasks)
        if self.first_step and trained > 0 and done < total:
            left = (total - done) * (now - self.first_step) / trained
            notes.append(f"about {duration(left)} left")
        yield Text(", ".join(notes))

    def _visible(self, tasks: list[Task]) -> list[Task]:
        """Returns the tasks that fit on screen, starting two rows above the first running task."""
        running = [task.id for task in tasks if task.fields["state"] == "running"]
        room = max(self.console.height - 5 - len(running), 1)
        first = max(min(running[0] - 2 if running else 0, len(tasks) - room), 0)
        return tasks[first : first + room]
