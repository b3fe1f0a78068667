"""Which runs are due, in what order, and what happens to each."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import keras
import numpy as np
from filelock import FileLock, Timeout

from resnet import UserError, models, parallel, tracking, training
from resnet.config import Job
from resnet.data import Dataset
from resnet.steps import Batch, groups, make_steps


class Display:
    """What a ladder reports while it runs; every method may be overridden.

    Arguments are plain data: with several processes they travel between them. What an
    ``Observer`` is told is passed on, with the job before it.
    """

    def started(self, job: Job) -> None:
        """The job is about to train, or to go on."""

    def resumed(self, job: Job, epoch: int, step: int) -> None:
        """See :meth:`resnet.training.Observer.resumed`."""

    def progress(self, job: Job, epoch: int, step: int, steps: int, logs: dict) -> None:
        """See :meth:`resnet.training.Observer.progress`."""

    def epoch(self, job: Job, history: list[dict[str, float]]) -> None:
        """See :meth:`resnet.training.Observer.epoch`."""

    def event(self, job: Job, epoch: int, text: str) -> None:
        """See :meth:`resnet.training.Observer.event`."""

    def skipped(self, job: Job, run_id: str, test_accuracy: float) -> None:
        """The job was finished before."""

    def waiting(self, job: Job) -> None:
        """Another process is at this job; it is waited for."""

    def finished(self, job: Job, summary: dict[str, float]) -> None:
        """The job is trained, tested and recorded; see :meth:`resnet.training.Outcome.summary`."""

    def failed(self, job: Job, reason: str) -> None:
        """The job failed; the ladder goes on with the next."""


@dataclass(frozen=True)
class Ladder:
    """What all jobs of an invocation share.

    Args:
        dataset: the images.
        store: where runs are recorded.
        tags: of the invocation's run and of its children.
        parent_id: the invocation's run.
        fresh: begin anew what is finished or begun.
    """

    dataset: Dataset
    store: tracking.Store
    tags: dict[str, str]
    parent_id: str
    fresh: bool

    def run(self, job: Job, display: Display, should_stop: Callable[[], bool]) -> bool:
        """Does one job: skips it if finished, goes on if begun, else trains it.

        Args:
            job: what to do.
            display: is told what happens.
            should_stop: asked between steps.

        Returns:
            False if it failed, which must not cost the other jobs.

        Raises:
            training.Interrupted: ``should_stop`` said so; a checkpoint is written.
            UserError: its checkpoint is damaged.
        """
        folder = self._checkpoints(job)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with _exclusively(folder, lambda: display.waiting(job), should_stop):
                self._run(job, folder, display, should_stop)
        except (training.Interrupted, UserError):
            raise
        except Exception as error:
            display.failed(job, f"{type(error).__name__}: {error}")
            return False
        finally:
            keras.backend.clear_session()
        return True

    def _checkpoints(self, job: Job) -> Path:
        """The folder that belongs to this job, dataset and backend alone."""
        parts = (
            job.experiment.name,
            job.experiment.hash()[:12],
            self.dataset.fingerprint[:12],
            f"seed{job.seed}",
            keras.backend.backend(),
        )
        return self.store.checkpoints / "-".join(parts)

    def _run(
        self, job: Job, folder: Path, display: Display, should_stop: Callable[[], bool]
    ) -> None:
        of_job = (self.store, job, self.dataset)
        begun = tracking.unfinished(*of_job)
        if self.fresh:
            while begun:
                tracking.abandon(self.store, begun)
                begun = tracking.unfinished(*of_job)
            (folder / "checkpoint.npz").unlink(missing_ok=True)
        elif not begun and (done := tracking.finished(*of_job)):
            shutil.rmtree(folder, ignore_errors=True)  # of a run killed just after it finished
            accuracy = done.data.metrics.get("test_accuracy", float("nan"))
            display.skipped(job, done.info.run_id, accuracy)
            return
        display.started(job)
        with tracking.child_run(*of_job, self.tags, self.parent_id) as child:
            try:
                outcome = training.train(
                    job.experiment,
                    self.dataset,
                    job.seed,
                    folder,
                    _Recording(job, display, child),
                    should_stop,
                )
                child.log_outcome(job, self.dataset, outcome)
            except (training.Interrupted, UserError):
                raise
            except Exception:
                child.log_failure(traceback.format_exc())
                raise
        shutil.rmtree(folder, ignore_errors=True)
        display.finished(job, outcome.summary())


class _Recording(training.Observer):
    """Passes everything on to the display, and epochs to MLflow first."""

    def __init__(self, job: Job, display: Display, child: tracking.ChildRun):
        self.child = child
        self.display = display
        for name in ("resumed", "progress", "event"):
            setattr(self, name, partial(getattr(display, name), job))
        self._tell_epoch = partial(display.epoch, job)

    def epoch(self, history: list[dict[str, float]]) -> None:
        self.child.log_history(history)
        self._tell_epoch(history)


def run(
    jobs: list[Job],
    dataset: Dataset,
    store: tracking.Store,
    display: Display,
    *,
    name: str,
    tags: dict[str, str],
    fresh: bool = False,
    processes: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[int, str]:
    """Runs the jobs in order; finished ones are skipped, begun ones taken up.

    Args:
        jobs: what to do.
        dataset: on which images.
        store: where it is recorded.
        display: is told what happens.
        name: of the invocation's run in MLflow.
        tags: of the invocation's run and of its children.
        fresh: begin anew what is finished or begun.
        processes: how many jobs to run at a time, each in a process of its own.
        should_stop: asked between steps.

    Returns:
        How many jobs failed, and the id of the invocation's run.

    Raises:
        training.Interrupted: ``should_stop`` said so; checkpoints are written.
        UserError: a checkpoint is damaged, or a dataset too small.
    """
    shape = dataset.x_train.shape
    for job in jobs:  # before the first hours are spent
        training.Plan.make(job.experiment, shape[0], shape[1:3], job.seed)
    with tracking.parent_run(store, name, tags | {"dataset": dataset.name}) as parent_id:
        ladder = Ladder(dataset, store, tags, parent_id, fresh)
        if processes > 1 and len(jobs) > 1:
            done = parallel.run(
                jobs, dataset, store.uri, tags, parent_id, fresh, processes, display, should_stop
            )
        else:
            done = [ladder.run(job, display, should_stop) for job in jobs]
    return done.count(False), parent_id


def _exclusively(folder: Path, waiting: Callable[[], None], should_stop: Callable[[], bool]):
    """Holds the job's lock, which a killed process loses with its life."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        waiting()
    while True:
        try:
            return lock.acquire(timeout=1)
        except Timeout:
            if should_stop():
                raise training.Interrupted from None


@dataclass(frozen=True)
class Estimate:
    """What a job will take, from a few steps on this machine."""

    parameters: int
    multiply_adds: int
    images_per_second: float
    seconds: float
    """For all epochs, validation included; an upper bound where early stopping may end it."""


def estimate(
    job: Job, n_train: int, n_classes: int, shape: tuple[int, int, int], budget: float = 3.0
) -> Estimate:
    """Counts the job's network and times some of its steps on random images.

    Args:
        job: what would run.
        n_train: number of training images.
        n_classes: number of classes.
        shape: height, width and channels of an image.
        budget: seconds to spend on training steps, and half as many on validation steps.

    Returns:
        The estimate.
    """
    experiment = job.experiment
    network = models.build(experiment.model, shape, n_classes, job.seed)
    counted = network.count_params(), models.multiply_adds(network)
    plan = training.Plan.make(experiment, n_train, shape[:2], job.seed)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (256, *shape), "uint8")
    steps = make_steps(
        network,
        images,
        generator.integers(0, n_classes, 256),
        experiment.data.pixel_scale,
        experiment.training.learning_rate,
    )

    def rate(step: Callable, calls: Iterable[list[Batch]], seconds: float) -> float:
        """Images a second, of calls of one size; the first two compile and are not counted."""
        calls = list(islice(calls, 4))
        done, began = 0, time.monotonic()
        for number, call in enumerate(
            cycle(c for c in calls if len(c[0][0]) == len(calls[0][0][0]))
        ):
            step([(positions % len(images), transforms) for positions, transforms in call])
            steps.logs()  # waits for the device
            if number < 2:
                began = time.monotonic()
                continue
            done += sum(len(positions) for positions, _ in call)
            if time.monotonic() - began > seconds:
                return done / (time.monotonic() - began)

    training_rate = rate(steps.train, groups(plan.batches(0), steps.per_call), budget)
    validation_rate = rate(
        lambda batches: steps.test(*batches), groups(plan.validation_batches(0), 1), budget / 2
    )
    epoch = len(plan.train) / training_rate + plan.validation_images / validation_rate
    return Estimate(*counted, training_rate, epoch * experiment.training.epochs)
