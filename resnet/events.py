"""What happens while runs train, told one way: from the training to whoever listens.

Events are plain data: the same listener serves a training in this process and one on another
machine.
"""

from collections.abc import Callable
from dataclasses import dataclass

from resnet.study import Job

History = list[dict[str, float]]
"""One record an epoch, see :class:`resnet.training.Outcome`."""


@dataclass(frozen=True)
class Event:
    """Something happened to a job's run."""

    job: Job


@dataclass(frozen=True)
class Started(Event):
    """It is about to train, or to go on, in a program of ``lanes``."""

    lanes: int = 1


@dataclass(frozen=True)
class Resumed(Event):
    """It goes on behind the epochs of ``history``, ``step`` steps into the next.

    ``shared`` of the epochs were trained by another run. ``differs`` maps what its bits depend on,
    where that is no longer what it was, to (then, now). ``due`` is whether any step is left.
    """

    step: int
    history: History
    shared: int
    differs: dict[str, tuple[str, str]]
    due: bool


@dataclass(frozen=True)
class Progress(Event):
    """Several times a second: ``step`` of ``steps`` done; loss, accuracy, learning_rate."""

    epoch: int
    step: int
    steps: int
    logs: dict[str, float]


@dataclass(frozen=True)
class Phase(Event):
    """It does something else than training: ``what`` (validating, testing, recording).

    While it validates, several times a second: ``done`` of ``total`` batches; else both are 0.
    """

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Epoch(Event):
    """An epoch is complete and in the checkpoint; its record is ``history[-1]``."""

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
    """Something else worth a line."""

    text: str


@dataclass(frozen=True)
class Skipped(Event):
    """It was finished before."""

    run_id: str
    test_accuracy: float


@dataclass(frozen=True)
class Finished(Event):
    """It is trained, tested and recorded; see :meth:`resnet.training.Outcome.summary`."""

    summary: dict[str, float]


@dataclass(frozen=True)
class Failed(Event):
    """It failed, which does not cost the other jobs."""

    reason: str


Listener = Callable[[Event], None]
