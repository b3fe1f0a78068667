"""Which runs are due, in what order, and what happens to each."""

import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import mlflow
import numpy as np
from filelock import FileLock, Timeout

from resnet import UserError, config, models, tracking, training
from resnet.data import Dataset
from resnet.steps import groups, make_steps


@dataclass(frozen=True)
class Job:
    """One experiment with one seed."""

    experiment: config.Experiment
    seed: int

    def checkpoints(self, store: tracking.Store, dataset: Dataset) -> Path:
        """The folder that belongs to this job, dataset and backend alone."""
        parts = (
            self.experiment.name,
            self.experiment.hash()[:12],
            dataset.fingerprint[:12],
            f"seed{self.seed}",
            keras.backend.backend(),
        )
        return store.checkpoints / "-".join(parts)


class Display(training.Observer):
    """What a ladder reports on top of each training; every method may be overridden."""

    def started(self, job: Job) -> None:
        """The job is about to train, or to go on."""

    def skipped(self, job: Job, run: mlflow.entities.Run) -> None:
        """The job was finished before, by ``run``."""

    def waiting(self, job: Job) -> None:
        """Another process is at this job; it is waited for."""

    def finished(self, job: Job, outcome: training.Outcome) -> None:
        """The job is trained, tested and recorded."""

    def failed(self, job: Job, error: Exception) -> None:
        """The job failed; the ladder goes on with the next."""


def run(
    jobs: list[Job],
    dataset: Dataset,
    store: tracking.Store,
    display: Display,
    *,
    name: str,
    tags: dict[str, str],
    fresh: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Runs the jobs in order; finished ones are skipped, begun ones taken up.

    Args:
        jobs: what to do.
        dataset: on which images.
        store: where it is recorded.
        display: is told what happens.
        name: of the invocation's run in MLflow.
        tags: of the invocation's run and of its children.
        fresh: begin anew what is finished or begun.
        should_stop: asked between steps.

    Returns:
        How many jobs failed.

    Raises:
        training.Interrupted: ``should_stop`` said so; checkpoints are written.
        UserError: a checkpoint is damaged, or a dataset too small.
    """
    for job in jobs:  # before the first hours are spent
        _plan(job, dataset)
    failures = 0
    with tracking.parent_run(store, name, tags | {"dataset": dataset.name}) as parent_id:
        for job in jobs:
            folder = job.checkpoints(store, dataset)
            folder.mkdir(parents=True, exist_ok=True)
            with _exclusively(folder, lambda job=job: display.waiting(job), should_stop):
                try:
                    _run_job(
                        job, dataset, store, display, folder, parent_id, tags, fresh, should_stop
                    )
                except (training.Interrupted, UserError):
                    raise
                except Exception as error:  # one rung's failure must not cost the others
                    failures += 1
                    display.failed(job, error)
            keras.backend.clear_session()
    return failures


def _plan(job: Job, dataset: Dataset) -> training.Plan:
    shape = dataset.x_train.shape
    return training.Plan.make(job.experiment, shape[0], shape[1:3], job.seed)


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


def _run_job(job, dataset, store, display, folder, parent_id, tags, fresh, should_stop) -> None:
    of_job = (store, job.experiment, dataset, job.seed)
    begun = tracking.unfinished(*of_job)
    if fresh:
        while begun:
            tracking.abandon(store, begun)
            begun = tracking.unfinished(*of_job)
        (folder / "checkpoint.npz").unlink(missing_ok=True)
    elif not begun and (done := tracking.finished(*of_job)):
        shutil.rmtree(folder, ignore_errors=True)  # of a run killed just after it finished
        display.skipped(job, done)
        return
    display.started(job)
    with tracking.child_run(store, job.experiment, dataset, job.seed, tags, parent_id) as child:
        observer = _Recording(display, child)
        try:
            outcome = training.train(
                job.experiment, dataset, job.seed, folder, observer, should_stop
            )
            child.log_outcome(job.experiment, dataset, outcome)
        except (training.Interrupted, UserError):
            raise
        except Exception:
            mlflow.log_text(traceback.format_exc(), "traceback.txt", run_id=child.run_id)
            raise
    shutil.rmtree(folder, ignore_errors=True)
    display.finished(job, outcome)


class _Recording(training.Observer):
    """Passes everything on to the display, and epochs to MLflow first."""

    def __init__(self, display: Display, child: tracking.ChildRun):
        self.child = child
        self.resumed, self.progress, self.event = (
            display.resumed,
            display.progress,
            display.event,
        )
        self._display = display

    def epoch(self, history: list[dict[str, float]]) -> None:
        self.child.log_history(history)
        self._display.epoch(history)


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

    def rate(step: Callable, calls, seconds: float) -> float:
        """Images a second, the first call (compilation) not counted."""
        done, began = 0, None
        for call in calls:
            batches = [(positions % len(images), transforms) for positions, transforms in call]
            step(batches)
            steps.logs()  # waits for the device
            if began is None:
                began = time.monotonic()
                continue
            done += sum(len(positions) for positions, _ in batches)
            if time.monotonic() - began > seconds:
                break
        return done / (time.monotonic() - began) if done else float("nan")

    training_rate = rate(steps.train, groups(plan.batches(0), steps.per_call), budget)
    validation_rate = rate(
        lambda batches: steps.test(*batches), groups(plan.validation_batches(0), 1), budget / 2
    )
    epoch = len(plan.train) / training_rate
    if np.isfinite(validation_rate):  # else validation fits one batch: too little to count
        epoch += plan.validation_images / validation_rate
    return Estimate(*counted, training_rate, epoch * experiment.training.epochs)
