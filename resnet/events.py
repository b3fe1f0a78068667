"""The events of runs that train, as plain data: they reach a listener from any machine."""

from collections.abc import Callable
from dataclasses import dataclass

from resnet.study import Job

History = list[dict[str, float]]
"""One dict per epoch, see :class:`resnet.training.Outcome`."""


@dataclass(frozen=True)
class Event:
    """Something happened to a job's run."""

    job: Job


@dataclass(frozen=True)
class Started(Event):
    """The run is about to start or resume, in a program of ``lanes``."""

    lanes: int = 1


@dataclass(frozen=True)
class Resumed(Event):
    """The run resumes after the epochs of ``history``, ``step`` steps into the next.

    Another run trained ``shared`` of these epochs. ``differs`` maps each fact that bits depend on,
    and that has changed, to its values (then, now). ``due`` is whether any step is left.
    """

    step: int
    history: History
    shared: int
    differs: dict[str, tuple[str, str]]
    due: bool


@dataclass(frozen=True)
class Progress(Event):
    """Several times a second: ``step`` of ``steps``; ``logs`` are loss, accuracy, learning_rate."""

    epoch: int
    step: int
    steps: int
    logs: dict[str, float]


@dataclass(frozen=True)
class Phase(Event):
    """The run is ``validating``, ``testing`` or ``recording``.

    While it validates, several times a second: ``done`` of ``total`` batches; else both are 0.
    """

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Epoch(Event):
    """An epoch is complete and has its checkpoint; its figures are ``history[-1]``."""

    history: History


@dataclass(frozen=True)
class RateDropped(Event):
    """The learning rate dropped at the end of ``epoch``."""

    epoch: int
    before: float
    after: float


@dataclass(frozen=True)
class Stopped(Event):
    """Early stopping triggered at the end of ``epoch``."""

    epoch: int
    monitor: str
    best_epoch: int


@dataclass(frozen=True)
class Notice(Event):
    """A line for the user."""

    text: str


@dataclass(frozen=True)
class Ended(Event):
    """The job is over."""


@dataclass(frozen=True)
class Skipped(Ended):
    """An earlier command finished the run."""

    run_id: str
    test_accuracy: float


@dataclass(frozen=True)
class Finished(Ended):
    """The run is trained, tested and recorded; see :meth:`resnet.training.Outcome.summary`."""

    summary: dict[str, float]


@dataclass(frozen=True)
class Failed(Ended):
    """The run failed; the other jobs go on."""

    reason: str


Listener = Callable[[Event], None]
