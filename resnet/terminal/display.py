"""What a ladder shows while it runs: a table that lives in a terminal, plain lines in a pipe."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.cells import set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from resnet import events
from resnet.host.shell import count, duration
from resnet.records import Course, diverged
from resnet.study import Job

_COLUMNS = {"epoch": 8, "validation": 11, "best": 8, "test": 8, "published": 10}
_MARKS = {"waiting": "·", "running": "▸", "finished": "✓", "skipped": "✓", "failed": "✗"}
_STYLES = {"waiting": "dim", "running": "bold", "failed": "red"}


@dataclass
class _Row:
    """A job as far as is known; moments are ``time.monotonic()``'s."""

    job: Job
    label: str
    title: str
    state: str = "waiting"
    began: float = 0.0
    phase: events.Phase | None = None  # what it does between training steps, and since when
    since: float = 0.0
    progress: events.Progress | None = None
    mark: tuple[float, int] = (0.0, 0)  # moment and step of the epoch's first progress
    rate: float = 0.0  # training images a second in this epoch
    history: events.History = field(default_factory=list)
    before: int = 0  # epochs that an earlier process did
    pace: float = 0.0  # seconds an epoch
    aside: float = 0.0  # seconds that belong to no epoch: compiling, testing, recording
    accuracy: float | None = None
    course: Course | None = None  # what recorded runs of the same settings did
    off: bool = False  # whether it left that course

    @property
    def epochs(self) -> int:
        return self.job.experiment.training.epochs

    @property
    def done(self) -> float:
        """Epochs that are behind it; all of them once it is over."""
        if self.state in ("finished", "skipped", "failed"):
            return self.epochs
        p = self.progress
        return max(len(self.history), p.epoch - 1 + p.step / p.steps if p else 0)

    @property
    def validated(self) -> list[float]:
        """Validation accuracies by epoch."""
        return [record["val_accuracy"] for record in self.history]

    @property
    def diverged(self) -> int:
        """See :func:`resnet.records.diverged`."""
        return diverged(record["loss"] for record in self.history)

    @property
    def sign(self) -> str:
        """Where the last epoch lies, if outside of what seeds explain."""
        expected = self.course.expected(len(self.history)) if self.course else None
        if not expected or expected[0] <= self.validated[-1] <= expected[1]:
            return ""
        return " ▲" if self.validated[-1] > expected[1] else " ▼"

    @property
    def trains(self) -> bool:
        """Whether it is at its epochs, rather than at what follows them."""
        over = self.phase and self.phase.what in ("testing", "recording")
        return self.state == "running" and not over

    def advance(self, event: events.Event) -> None:
        """Takes in what happened."""
        now = time.monotonic()
        match event:
            case events.Started():
                self.state, self.began, self.progress = "running", now, None
                self.phase, self.since = events.Phase(event.job, "compiling"), now
            case events.Resumed():
                self.history, self.before = event.history, len(event.history)
            case events.Progress():
                if not self.progress:
                    self.aside = now - self.began
                if not self.progress or self.progress.epoch != event.epoch:
                    self.mark = now, event.step
                elif now - self.mark[0] > 0.5:
                    steps_a_second = (event.step - self.mark[1]) / (now - self.mark[0])
                    self.rate = steps_a_second * self.job.experiment.training.batch_size
                    if len(self.history) - self.before < 2:  # the first epoch compiles too
                        self.pace = event.steps / steps_a_second
                self.phase, self.progress = None, event
            case events.Phase():
                if not self.phase or self.phase.what != event.what:
                    self.since = now
                self.phase = event
            case events.Epoch():
                self.history, self.phase = event.history, None
                if len(self.history) - self.before >= 2:
                    self.pace = self.history[-1]["epoch_seconds"]
            case events.Skipped():
                self.state, self.accuracy = "skipped", event.test_accuracy
            case events.Finished():
                ran = self.pace * (len(self.history) - self.before)
                self.aside = max(now - self.began - ran, 0)
                self.state, self.accuracy = "finished", event.summary["test_accuracy"]
            case events.Failed():
                self.state = "failed"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _recorded(row: _Row) -> str:
    """From where to where recorded runs of the same settings went in the last epoch."""
    span = row.course.recorded(len(row.history)) if row.course else None
    return f", recorded: {100 * span[0]:.1f} to {_percent(span[1])}" if span else ""


class Display:
    """A listener: shows the jobs of an invocation, and prints a line for what is worth keeping.

    Args:
        console: where to write.
        jobs: all of them, in order.
        published: test accuracies to set beside those measured, by experiment; none where they
            are of something else.
        courses: what recorded runs of the same settings did, from :func:`resnet.records.courses`.
    """

    def __init__(
        self,
        console: Console,
        jobs: list[Job],
        published: Mapping[str, float] | None = None,
        courses: Mapping[str, Course] | None = None,
    ):
        self.console = console
        self.published = published or {}
        seeds = len({job.seed for job in jobs}) > 1
        self.rows = {
            self._key(job): _Row(
                job,
                f"{job.label}{f' · seed {job.seed}' * seeds}",
                f"{job.title}{f' · seed {job.seed}' * seeds}",
                course=(courses or {}).get(job.experiment.hash()),
            )
            for job in jobs
        }
        self.numbers = {key: number for number, key in enumerate(self.rows, 1)}
        self.at_once = 1  # as many as ever trained side by side
        self.began = time.monotonic()
        self.live = Live(
            console=console, get_renderable=self.render, refresh_per_second=4, transient=True
        )

    @property
    def idle(self) -> bool:
        """Whether every job was finished before."""
        return all(row.state == "skipped" for row in self.rows.values())

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def __call__(self, event: events.Event) -> None:
        """Shows what happened."""
        row = self.rows[self._key(event.job)]
        row.advance(event)
        self.at_once = max(self.at_once, sum(row.trains for row in self.rows.values()))
        self._print(row, event, self._line(row, event))
        if isinstance(event, events.Epoch):
            self._print(row, event, self._warning(row))

    def _print(self, row: _Row, event: events.Event, text: str) -> None:
        if text:
            short = isinstance(event, events.Epoch) and self.console.is_terminal
            self.console.print(
                f"[dim]{self.numbers[self._key(event.job)]}/{len(self.rows)}[/dim] "
                + f"[bold]{escape(row.title)}[/bold]  " * (not short)
                + text,
                highlight=False,
                soft_wrap=not self.console.is_terminal,
            )

    @staticmethod
    def _key(job: Job) -> tuple:
        return job.row, job.seed

    def _line(self, row: _Row, event: events.Event) -> str:
        match event:
            case events.Started(_, lanes):
                beside = f", in one of {lanes} lanes" * (lanes > 1)
                return f"training, at most {count(row.epochs, 'epoch')}{beside}"
            case events.Resumed(_, step, history, shared, differs, due):
                changes = ", ".join(f"{key} {a} -> {b}" for key, (a, b) in differs.items())
                elsewhere = f"; not as it began, so its bits may differ: {escape(changes)}"
                whose = f"shares {count(shared, 'epoch')} with another run; " * bool(shared)
                going_on = f"goes on in epoch {len(history) + 1}, {step} steps into it"
                where = going_on if due else "nothing left to train"
                return f"{whose}{where}{elsewhere * bool(differs)}"
            case events.Epoch(_, [*_, last]) if self.console.is_terminal and _recorded(row):
                return (
                    f"epoch {last['epoch']}/{row.epochs}: accuracy {_percent(last['accuracy'])}, "
                    f"val {_percent(last['val_accuracy'])}{_recorded(row)}"
                )
            case events.Epoch(_, [*_, last]) if self.console.is_terminal:  # fits 80 columns
                return (
                    f"epoch {last['epoch']}/{row.epochs}: "
                    f"loss {last['loss']:.3f}, val {last['val_loss']:.3f}; "
                    f"accuracy {_percent(last['accuracy'])}, val {_percent(last['val_accuracy'])}"
                )
            case events.Epoch(_, [*_, last]):
                return (
                    f"epoch {last['epoch']}/{row.epochs}: "
                    f"loss {last['loss']:.4f}, accuracy {last['accuracy']:.4f}, "
                    f"val_loss {last['val_loss']:.4f}, val_accuracy {last['val_accuracy']:.4f}, "
                    f"{last['images_per_second']:.0f} images/s{_recorded(row)}"
                )
            case events.RateDropped(_, epoch, before, after):
                return f"epoch {epoch}: learning rate {before:.3g} -> {after:.3g}"
            case events.Stopped(_, epoch, monitor, best):
                return f"epoch {epoch}: early stopping: {monitor} was best in epoch {best}"
            case events.Notice(_, text):
                return escape(text)
            case events.Skipped(_, run_id, accuracy):
                return (
                    f"already finished, test accuracy {accuracy:.2%} (run {run_id[:8]}; "
                    "--fresh trains it again)"
                )
            case events.Finished(_, summary):
                epochs = count(summary["epochs_run"], "epoch")
                epoch = row.diverged
                return (
                    f"[green]test accuracy {summary['test_accuracy']:.2%}[/green] after "
                    f"{epochs}, {duration(summary['train_seconds'])}"
                    + f"; [red]diverged in epoch {epoch}[/red]"
                    * bool(epoch)
                )
            case events.Failed(_, reason):
                return f"[red]failed:[/red] {escape(reason[:300])}"
        return ""

    def _warning(self, row: _Row) -> str:
        """What to say when a run diverges or leaves its course, once each time."""
        if row.diverged == len(row.history):
            return (
                "[red]diverged:[/red] the loss is not finite any more; nothing is learned from it"
            )
        was_off, row.off = row.off, row.course is not None and row.course.off(row.validated)
        expected = row.course.expected(len(row.history)) if row.course else None
        if not row.off or was_off or not expected:
            return ""
        low, high = expected
        return (
            f"[yellow]off course:[/yellow] three epochs in a row lie outside of {_percent(low)} to "
            f"{_percent(high)}, which seeds explain; look at data, --set and versions"
        )

    def render(self) -> RenderableType:
        """Draws the table as it is now, no taller than the terminal."""
        columns = [name for name in _COLUMNS if name != "published" or self.published]
        visible, hidden = self._window(self.console.height - 5)
        lines = [self._cells("", "rung", columns, "dim")]
        for row in visible:
            validated = row.validated
            epoch = row.progress.epoch if row.progress else len(row.history)
            cells = {
                "epoch": f"{epoch}/{row.epochs}" * (row.state != "skipped"),
                "validation": _percent(validated[-1] if validated else None) + row.sign,
                "best": _percent(max(validated, default=None)),
                "test": _percent(row.accuracy) or row.state * (row.state != "running"),
                "published": _percent(self.published.get(row.job.experiment.name)),
            }
            style = _STYLES.get(row.state, "")
            shown_cells = [cells[name] for name in columns]
            lines.append(self._cells(_MARKS[row.state], row.label, shown_cells, style))
            if row.state == "running":
                lines.append(Text(f"    {self._doing(row)}", "cyan", no_wrap=True))
        if hidden:
            states = [row.state for row in hidden]
            counts = [f"{states.count(state)} {state}" for state in _MARKS if state in states]
            lines.append(Text(f"  and {', '.join(counts)}", "dim"))
        rows = self.rows.values()
        bar = ProgressBar(sum(row.epochs for row in rows), sum(row.done for row in rows))
        over = sum(row.state not in ("waiting", "running") for row in rows)
        notes = [f"{over} of {len(rows)} done in {duration(time.monotonic() - self.began)}"]
        if (left := self._left()) is not None:
            notes.append(f"about {duration(left)} left")
        training = [row for row in rows if row.trains]
        rate = sum(row.rate for row in training)
        if len(training) > 1 and rate:
            notes.append(f"{len(training)} side by side, {rate:,.0f} images/s in all")
        return Group(
            *lines,
            Padding(bar, 0),  # ends its line
            Text(", ".join(notes)),
        )

    def _cells(self, mark: str, title: str, cells: list[str], style: str) -> Text:
        widths = list(_COLUMNS.values())[: len(cells)]
        room = min(self.console.width, 100) - 2 - sum(widths)
        text = f"{mark:2}{set_cell_size(title, max(room, 10))}"
        text += "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return Text(text, style, no_wrap=True, overflow="ellipsis")

    def _doing(self, row: _Row) -> str:
        if row.phase:
            batches = f" {row.phase.done}/{row.phase.total}" if row.phase.total else ""
            return f"{row.phase.what}{batches}, {duration(time.monotonic() - row.since)}"
        if not (p := row.progress):
            return ""
        return (
            f"step {p.step}/{p.steps}, {row.rate:.0f} images/s, loss {p.logs['loss']:.3f}, "
            f"accuracy {_percent(p.logs['accuracy'])}, rate {p.logs['learning_rate']:.2g}"
        )

    def _window(self, lines: int) -> tuple[list[_Row], list[_Row]]:
        """The rows there is room for, in order, what runs first of all; and the others."""
        by_state: dict[str, list[_Row]] = {state: [] for state in _MARKS}
        for row in self.rows.values():
            by_state[row.state].append(row)
        over = [row for row in self.rows.values() if row.state not in ("waiting", "running")][::-1]
        chosen: list[int] = []
        for row in (*by_state["running"], *over[:3], *by_state["waiting"], *over[3:]):
            lines -= 2 if row.state == "running" else 1
            if lines < (len(chosen) + 1 < len(self.rows)):  # a line tells of those left out
                break
            chosen.append(id(row))
        rows = self.rows.values()
        return [r for r in rows if id(r) in chosen], [r for r in rows if id(r) not in chosen]

    def _left(self) -> float | None:
        """Seconds for all that is left, from what was measured so far; None before that.

        A rung not yet run goes at the pace of one with the same network, else at the slowest.
        """
        measured = [row for row in self.rows.values() if row.pace]
        if not measured:
            return None
        pace = {str(row.job.experiment.model): row.pace for row in measured}
        aside = sum(row.aside for row in measured) / len(measured)
        left = []
        for row in self.rows.values():
            each = pace.get(str(row.job.experiment.model), max(pace.values()))
            seconds = (row.epochs - row.done) * each
            if row.state == "waiting":
                seconds += aside
            elif row.state == "running" and not row.progress:  # it compiles
                seconds += max(aside - (time.monotonic() - row.began), 0)
            left.append(seconds)
        # those that train side by side do so to the end, but none is divided among them
        return max(sum(left) / self.at_once, *left)
