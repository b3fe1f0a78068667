"""Which runs are due, in what order, and what happens to each."""

import contextlib
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import keras
import numpy as np
from filelock import FileLock, Timeout

from resnet import (
    Interrupted,
    UserError,
    checkpoints,
    events,
    models,
    progression,
    registry,
    tracking,
    training,
)
from resnet.config import Job
from resnet.data import Dataset
from resnet.leases import Lease, Lost
from resnet.program import Lane, Program, make_steps
from resnet.steps import Batch, Steps, groups
from resnet.store import Store, hide, mask, patient

WORKERS_LOST = 5
"""How often a run may lose its worker without completing an epoch in between."""


@dataclass(frozen=True)
class Ladder:
    """What all jobs of an invocation share.

    Args:
        store: where runs are recorded.
        tags: of the invocation's run and of its children.
        parent_id: the invocation's run.
        fresh: begin anew what earlier invocations finished or began.
        checkpoints: the folder of all checkpoints, a path or URL.
    """

    store: Store
    tags: dict[str, str]
    parent_id: str
    fresh: bool
    checkpoints: str

    def place(self, job: Job, dataset: Dataset) -> str:
        """The folder of a job's states, which it shares with those of the same trajectory."""
        parts = job.experiment.trajectory()[:16], dataset.fingerprint[:12], f"seed{job.seed}"
        return "-".join((*parts, keras.backend.backend()))

    def lock(self, place: str) -> FileLock:
        """On this machine, of whoever is at it; a killed process loses it with its life."""
        self.store.checkpoints.mkdir(parents=True, exist_ok=True)
        return FileLock(self.store.checkpoints / f"{place}.lock")

    def run(
        self,
        job: Job,
        dataset: Dataset,
        listener: events.Listener,
        should_stop: Callable[[], bool],
        lost: int = 0,
        lane: Lane | None = None,
    ) -> events.Event:
        """Does one job: skips it if finished, goes on if begun, else trains it.

        Args:
            job: what to do.
            dataset: on which images.
            listener: is told what happens on the way.
            should_stop: asked between steps.
            lost: how often its worker was lost since its last epoch.
            lane: its place in a program of several, see :class:`resnet.program.Lane`.

        Returns:
            What became of it: ``Finished``, ``Skipped``, or ``Failed``, which must not cost the
            other jobs.

        Raises:
            Interrupted: ``should_stop`` said so; a checkpoint is written.
        """
        place = self.place(job, dataset)
        folder = f"{self.checkpoints}/{place}"
        patiently = patient(self.store, lambda text: listener(events.Told(job, text)), should_stop)
        lock = self.lock(place)
        lanes = lane.program.lanes if lane else 1
        tags = self.tags | {"lanes": str(lanes)}

        def taken(lease: Lease) -> tracking.Run | None:
            """The run, unless another process is at it."""
            try:
                if not lock.is_locked:
                    lock.acquire(timeout=0)
            except Timeout:
                return None
            return tracking.take(
                *(self.store, job, dataset, tags, self.parent_id, lease, patiently),
                fresh=self.fresh,
                folder=folder,
            )

        try:
            while True:
                lease = Lease(self.store, Path(lock.lock_file))
                waited = False
                while not (run := taken(lease)):
                    if not waited:
                        listener(events.Told(job, "is at another process; waiting for it"))
                    waited = True
                    if should_stop():
                        raise Interrupted
                    time.sleep(1)
                if run.info.status == "FINISHED":
                    if (known := run.data.tags["rung"]) != job.experiment.name:
                        listener(events.Told(job, f"the same as {known}, as which it was trained"))
                    accuracy = run.data.metrics.get("test_accuracy", float("nan"))
                    return events.Skipped(job, run.info.run_id, accuracy)
                listener(events.Started(job, lanes))
                try:
                    with tracking.child_run(
                        self.store, run, job, dataset, lease, patiently
                    ) as child:
                        summary = _train(
                            job, dataset, folder, child, listener, should_stop, lost, lane
                        )
                except Lost:
                    listener(events.Told(job, "another process has taken the run over"))
                    continue
                return events.Finished(job, summary)
        except Interrupted:
            raise
        except UserError as error:
            return events.Failed(job, hide(str(error)))
        except Exception as error:
            return events.Failed(job, mask(f"{type(error).__name__}: {error}"))
        finally:
            lock.release()
            keras.backend.clear_session()

    def forget(self, job: Job, dataset: Dataset) -> None:
        """Removes a trajectory's states, unless a run that was begun on it still needs them."""
        place = self.place(job, dataset)
        folder = f"{self.checkpoints}/{place}"
        with contextlib.suppress(Timeout), self.lock(place).acquire(timeout=0):
            begun = tracking.unfinished(self.store, tracking.sharing(job, dataset))
            if checkpoints.visible(folder) and not begun:
                checkpoints.remove(folder)


def _train(
    job: Job,
    dataset: Dataset,
    folder: str,
    child: tracking.ChildRun,
    listener: events.Listener,
    should_stop: Callable[[], bool],
    lost: int,
    lane: Lane | None,
) -> dict[str, float]:
    """Trains one run and records it; returns its summary."""

    def record(event: events.Event) -> None:
        if isinstance(event, events.Resumed) and event.differs:
            child.log_differences(event.differs)
        if isinstance(event, events.Resumed | events.Epoch):
            child.log_history(event.history)
        listener(event)

    def stop() -> bool:
        child.lease.raise_if_lost()
        return should_stop()

    try:
        if lost > WORKERS_LOST:
            raise RuntimeError(
                f"its worker was lost {lost} times without completing an epoch in between"
            )
        outcome = training.train(job.experiment, dataset, job.seed, folder, record, stop, lane)
        listener(events.Phase(job, "recording"))
        child.log_outcome(job, dataset, outcome)
    except (Interrupted, Lost):
        raise
    except Exception:
        child.log_failure(hide(traceback.format_exc()))
        raise
    return outcome.summary()


def run(
    jobs: list[Job],
    dataset: Dataset,
    store: Store,
    listener: events.Listener,
    *,
    name: str,
    tags: dict[str, str],
    fresh: bool = False,
    folder: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    at_once: Callable[..., list[events.Event]] | None = None,
) -> tuple[int, str]:
    """Runs the jobs in order; finished ones are skipped, begun ones taken up.

    Args:
        jobs: what to do.
        dataset: on which images.
        store: where it is recorded.
        listener: is told what happens.
        name: of the invocation's run in MLflow.
        tags: of the invocation's run and of its children.
        fresh: begin anew what is finished or begun.
        folder: of all checkpoints, a path or URL; by default beside the store.
        should_stop: asked between steps.
        at_once: :func:`resnet.engine.run` with its options, to run several at a time; by
            default one runs after the other in this process.

    Returns:
        How many jobs failed, and the id of the invocation's run, empty if all were finished.

    Raises:
        Interrupted: ``should_stop`` said so; checkpoints are written.
        UserError: the dataset is too small, checkpoints cannot be written, or the cluster
            cannot be used.
    """
    folder = folder or str(store.checkpoints)
    if "://" not in folder:
        folder = os.path.abspath(folder)  # noqa: PTH100 - workers have a folder of their own

    def tell(text: str) -> None:
        listener(events.Told(jobs[0], text))

    shape = dataset.x_train.shape
    apart: dict[str, None] = {}
    for job in jobs:  # before the first hours are spent
        plan = training.Plan.make(job.experiment, shape[0], shape[1:3], job.seed)
        if not plan.same_classes(dataset.y_train):  # Keras's generator refuses, its fit does not
            apart[job.experiment.name] = None
    if apart:
        tell(
            f"{', '.join(apart)}: the images that validate are of other classes than those that "
            "train, since they are taken by the order of their file names: number them mixed"
        )
    checkpoints.remove(checkpoints.prepare(folder))
    patiently = patient(store, tell, should_stop)

    def over(job: Job) -> bool:
        of = tracking.identity(job, dataset)
        finished = patiently(store.search, **of, role="rung", status="FINISHED")
        # begun anew it goes on, whatever was finished before
        return bool(finished) and not patiently(tracking.unfinished, store, of)

    idle = not (fresh or patiently(store.search, role="ladder", status="RUNNING")) and all(
        map(over, jobs)
    )
    parent = (
        contextlib.nullcontext("")  # a run that would hold nothing
        if idle
        else tracking.parent_run(store, name, tags | {"dataset": dataset.name}, patiently)
    )
    with parent as parent_id:
        ladder = Ladder(store, tags, parent_id, fresh, folder)
        waiting = Counter(ladder.place(job, dataset) for job in jobs)

        def hear(event: events.Event) -> None:
            listener(event)
            if isinstance(event, events.Finished | events.Skipped | events.Failed):
                waiting[place := ladder.place(event.job, dataset)] -= 1
                if not waiting[place]:
                    patiently(ladder.forget, event.job, dataset)

        if at_once and not idle:
            done = at_once(jobs, dataset, ladder.run, folder, hear, should_stop)
        else:
            done = []
            for job in jobs:
                done.append(ladder.run(job, dataset, listener, should_stop))
                hear(done[-1])
        if parent_id:
            _conclude(store, parent_id, done, dataset, tags, patiently)
    return sum(isinstance(event, events.Failed) for event in done), parent_id


def _conclude(
    store: Store,
    parent_id: str,
    done: list[events.Event],
    dataset: Dataset,
    tags: dict[str, str],
    patiently: Callable,
) -> None:
    """Makes the invocation's run show what became of the ladder, and registers its models."""
    measured = [
        (
            event.job.experiment.name,
            event.job.experiment.title,
            event.test_accuracy
            if isinstance(event, events.Skipped)
            else event.summary["test_accuracy"],
        )
        for event in done
        if isinstance(event, events.Skipped | events.Finished)
    ]
    of = tags | {"dataset": dataset.name}
    progression.log(store, parent_id, measured, of, tracking.inputs_of(dataset), patiently)
    if measured and not tags.get("modified"):
        patiently(registry.register, store, dataset, tags["profile"])


def estimate(
    job: Job,
    n_train: int,
    n_classes: int,
    shape: tuple[int, int, int],
    lanes: int = 1,
    budget: float = 3.0,
) -> dict[str, float]:
    """Counts the job's network and times some of its steps on random images.

    Args:
        job: what would run.
        n_train: number of training images.
        n_classes: number of classes.
        shape: height, width and channels of an image.
        lanes: how many such jobs would train side by side.
        budget: seconds to spend on training steps, and half as many on validation steps.

    Returns:
        ``parameters``, ``multiply_adds``, ``images_per_second`` of all lanes together, and
        ``time``: one lane's share of the seconds for all epochs, validation included, more than
        it takes if early stopping ends it.
    """
    experiment = job.experiment
    networks = [models.build(experiment.model, shape, n_classes, seed) for seed in range(lanes)]
    plan = training.Plan.make(experiment, n_train, shape[:2], job.seed)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (256, *shape), "uint8")
    labels = generator.integers(0, n_classes, 256)
    if lanes > 1:
        program = Program(images, labels, n_classes, experiment.data.pixel_scale, lanes)
        every = [program.lane()(network, experiment) for network in networks]
    else:
        every = [make_steps(networks[0], images, labels, experiment)]

    def rate(steps: Steps, step: Callable, calls: Iterable[list[Batch]], seconds: float) -> float:
        """Images a second, of calls of one size; the first two compile and are not counted."""
        first, *others = islice(calls, 4)
        same = [first, *(call for call in others if len(call[0][0]) == len(first[0][0]))]
        done, began = 0, time.monotonic()
        for number, call in enumerate(cycle(same)):
            step([(positions % len(images), transforms) for positions, transforms in call], 0)
            steps.logs()  # waits for the device
            if number < 2:
                began = time.monotonic()
                continue
            done += sum(len(positions) for positions, _ in call)
            if time.monotonic() - began > seconds:
                break
        return done / (time.monotonic() - began)

    def rates(steps: Steps) -> tuple[float, float]:
        with contextlib.closing(steps):
            calls = (call for _, call in groups(plan.batches(0), steps.per_call))
            train = rate(steps, steps.train, calls, budget)
            looks = ([batch] for batch in plan.validation_batches(0))
            return train, rate(steps, lambda b, n: steps.test(b[0], n), looks, budget / 2)

    with ThreadPoolExecutor(lanes) as pool:
        training_rate, validation_rate = map(sum, zip(*pool.map(rates, every), strict=True))
    epoch = len(plan.train) / training_rate + plan.validation_images / validation_rate
    return {
        "parameters": networks[0].count_params(),
        "multiply_adds": models.multiply_adds(networks[0]),
        "images_per_second": training_rate,
        "time": epoch * experiment.training.epochs,
    }
