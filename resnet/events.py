"""The events of a run. They are plain data, so that a worker can send them to another machine."""

from collections.abc import Callable
from dataclasses import dataclass

from resnet.study import Job

History = list[dict[str, float]]
"""One dictionary per epoch, with the keys that :class:`resnet.training.Outcome` lists."""


@dataclass(frozen=True)
class Event:
    """An event of a job's run."""

    job: Job


@dataclass(frozen=True)
class Started(Event):
    """The run is about to start or resume in a program with ``lanes`` lanes."""

    lanes: int = 1


@dataclass(frozen=True)
class Resumed(Event):
    """The run resumes after step ``step`` of the epoch that follows ``history``.

    ``shared`` counts the epochs that another run trained. ``differs`` maps each changed fact of
    ``training.numerics`` to (old value, new value). ``due`` is False if the training is complete.
    """

    step: int
    history: History
    shared: int
    differs: dict[str, tuple[str, str]]
    due: bool


@dataclass(frozen=True)
class Progress(Event):
    """``step`` of ``steps`` steps are done. ``logs`` has loss, accuracy and learning_rate."""

    epoch: int
    step: int
    steps: int
    logs: dict[str, float]


@dataclass(frozen=True)
class Phase(Event):
    """The run is now in the phase ``what``: ``validating``, ``testing`` or ``recording``.

    During validation, ``done`` of ``total`` batches are done. Otherwise both numbers are 0.
    """

    what: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Epoch(Event):
    """An epoch is complete and has a checkpoint. ``history[-1]`` has the epoch's figures."""

    history: History


@dataclass(frozen=True)
class RateDropped(Event):
    """The learning rate dropped at the end of ``epoch``."""

    epoch: int
    before: float
    after: float


@dataclass(frozen=True)
class Stopped(Event):
    """Early stopping ended the training after ``epoch``."""

    epoch: int
    monitor: str
    best_epoch: int


@dataclass(frozen=True)
class Notice(Event):
    """A one-line message for the user."""

    text: str


@dataclass(frozen=True)
class Ended(Event):
    """The job has ended."""


@dataclass(frozen=True)
class Skipped(Ended):
    """The job was not trained again, because a finished run of this job exists."""

    run_id: str
    test_accuracy: float


@dataclass(frozen=True)
class Finished(Ended):
    """The run is trained, tested and stored. ``summary`` comes from ``training.Outcome``."""

    summary: dict[str, float]


@dataclass(frozen=True)
class Failed(Ended):
    """The run failed. The other jobs continue."""

    reason: str


Listener = Callable[[Event], None]
