"""Which runs are due, in what order, and what happens to each."""

import contextlib
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from resnet import Interrupted, UserError, events, tracking
from resnet.data import Dataset
from resnet.host.messages import hide, mask
from resnet.network import keras
from resnet.store import Run, Store
from resnet.study import Job
from resnet.tracking import Lease, Lost
from resnet.training import Epochs, Lane, checkpoints, train

WORKERS_LOST = 5
"""How often a run may lose its worker without completing an epoch in between."""

Engine = Callable[..., list[events.Event]]
"""``engine(jobs, dataset, work, folder, listener, should_stop)``: trains jobs its own way.

Any starts no two jobs at once that share a trajectory, gives a job whose worker was lost to another
with the number of losses since its last epoch, calls ``listener`` in the caller's thread, and keeps
Ctrl-C from its workers, which stop when ``should_stop`` says so here.
"""


@dataclass(frozen=True)
class Ladder:
    """What all jobs of an invocation share.

    Args:
        store: where runs are recorded.
        parents: the invocation's run by what is modified; a sweep has one for each value.
        fresh: begin anew what earlier invocations finished or began.
        checkpoints: the folder of all checkpoints, a path or URL.
    """

    store: Store
    parents: Mapping[str, str]
    fresh: bool
    checkpoints: str

    def place(self, job: Job, dataset: Dataset) -> str:
        """Returns the folder of a job's states, shared with those of the same trajectory."""
        parts = job.experiment.trajectory()[:16], dataset.fingerprint[:12], f"seed{job.seed}"
        return "-".join((*parts, keras.backend.backend()))

    def lock(self, place: str) -> FileLock:
        """Makes this machine's lock on it; a killed process loses it with its life."""
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
            lane: its place in a program of several.

        Returns:
            What became of it: ``Finished``, ``Skipped``, or ``Failed``, which must not cost the
            other jobs.

        Raises:
            Interrupted: ``should_stop`` said so; a checkpoint is written.
        """
        store = self.store.waiting(lambda text: listener(events.Notice(job, text)), should_stop)
        lock = self.lock(self.place(job, dataset))
        work = _Work(replace(self, store=store), job, dataset, listener, should_stop, lost, lane)
        try:
            while True:
                lease = Lease(store, Path(lock.lock_file))
                run = work.wait_for_run(lock, lease)
                if run.info.status == "FINISHED":
                    known = run.data.tags.get("rung", job.experiment.name)
                    if known != job.experiment.name:
                        listener(
                            events.Notice(job, f"the same as {known}, as which it was trained")
                        )
                    accuracy = run.data.metrics.get("test_accuracy", float("nan"))
                    return events.Skipped(job, run.info.run_id, accuracy)
                listener(events.Started(job, work.lanes))
                try:
                    with tracking.child_run(store, run, job, dataset, lease) as child:
                        return events.Finished(job, work.train(child))
                except Lost:
                    listener(events.Notice(job, "another process has taken the run over"))
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


@dataclass(frozen=True)
class _Work:
    """One job on its way; arguments as of :meth:`Ladder.run`."""

    ladder: Ladder
    job: Job
    dataset: Dataset
    listener: events.Listener
    should_stop: Callable[[], bool]
    lost: int
    lane: Lane | None

    @property
    def lanes(self) -> int:
        return self.lane.program.lanes if self.lane else 1

    @property
    def folder(self) -> str:
        return f"{self.ladder.checkpoints}/{self.ladder.place(self.job, self.dataset)}"

    def wait_for_run(self, lock: FileLock, lease: Lease) -> Run:
        """Waits until no other process is at the job's run, and returns it."""
        waited = False
        while not (run := self._take(lock, lease)):
            if not waited:
                self.listener(events.Notice(self.job, "is at another process; waiting for it"))
            waited = True
            if self.should_stop():
                raise Interrupted
            time.sleep(1)
        return run

    def _take(self, lock: FileLock, lease: Lease) -> Run | None:
        try:
            if not lock.is_locked:
                lock.acquire(timeout=0)
        except Timeout:
            return None
        return tracking.take(
            self.ladder.store,
            self.job,
            self.dataset,
            self.ladder.parents[self.job.modified],
            lease,
            lanes=self.lanes,
            fresh=self.ladder.fresh,
            folder=self.folder,
        )

    def train(self, child: tracking.RunWriter) -> dict[str, float]:
        """Trains a run that was taken and records it; returns its summary."""

        def record(event: events.Event) -> None:
            event = replace(event, job=self.job)  # a training knows nothing of --set
            if isinstance(event, events.Resumed) and event.differs:
                child.log_differences(event.differs)
            if isinstance(event, events.Resumed | events.Epoch):
                child.log_history(event.history)
            self.listener(event)

        def stop() -> bool:
            child.lease.raise_if_lost()
            return self.should_stop()

        job, dataset = self.job, self.dataset
        try:
            if self.lost > WORKERS_LOST:
                raise RuntimeError(
                    f"its worker was lost {self.lost} times without completing an epoch in between"
                )
            where = self.folder, record, stop, self.lane
            outcome = train(job.experiment, dataset, job.seed, *where)
            self.listener(events.Phase(job, "recording"))
            child.log_outcome(job, dataset, outcome)
        except (Interrupted, Lost):
            raise
        except Exception:
            child.log_failure(hide(traceback.format_exc()))
            raise
        return outcome.summary()


def run_jobs(
    jobs: list[Job],
    dataset: Dataset,
    store: Store,
    listener: events.Listener,
    *,
    name: str,
    fresh: bool = False,
    folder: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    engine: Engine | None = None,
) -> tuple[int, dict[str, str]]:
    """Runs the jobs in order; finished ones are skipped, begun ones taken up.

    Args:
        jobs: what to do, of one profile.
        dataset: on which images.
        store: where it is recorded.
        listener: is told what happens.
        name: of the invocation's runs in MLflow.
        fresh: begin anew what is finished or begun.
        folder: of all checkpoints, a path or URL; by default beside the store.
        should_stop: asked between steps.
        engine: runs several at a time; by default one runs after the other in this process.

    Returns:
        How many jobs failed, and by ``modified`` the id of the invocation's run. If all were
        finished, it is that of the newest earlier one whose ladder was not logged, or empty.

    Raises:
        Interrupted: ``should_stop`` said so; checkpoints are written.
        UserError: the dataset is too small, checkpoints cannot be written, or the cluster
            cannot be used.
    """
    folder = folder or str(store.checkpoints)
    if "://" not in folder:
        folder = os.path.abspath(folder)  # noqa: PTH100 - workers have a folder of their own
    _check_data(jobs, dataset, listener)
    # a full disk or a bucket without rights is told now and not after the first epoch
    checkpoints.remove(checkpoints.prepare(folder))
    patient = store.waiting(lambda text: listener(events.Notice(jobs[0], text)), should_stop)
    _tell_of_other_images(patient, jobs, dataset, listener)
    with _parents(patient, name, jobs, dataset, fresh) as parents:
        # the store without its patience, which is this process's, goes to the workers
        ladder = Ladder(store, parents, fresh, folder)
        hear = _forgetting(replace(ladder, store=patient), jobs, dataset, listener)
        train_all = engine if engine and any(parents.values()) else _one_by_one
        done = train_all(jobs, dataset, ladder.run, folder, hear, should_stop)
        failed = sum(isinstance(event, events.Failed) for event in done)
        # also of runs that are finished: whatever kept an earlier command from it is over
        if failed < len(done) and not jobs[0].modified:
            patient.patiently(tracking.register, store, dataset, jobs[0].profile)
    return failed, {
        modified: parents[modified] or _unreported(patient, job, dataset)
        for modified, job in {job.modified: job for job in jobs}.items()
    }


@contextlib.contextmanager
def _parents(
    store: Store, name: str, jobs: list[Job], dataset: Dataset, fresh: bool
) -> Iterator[dict[str, str]]:
    """Opens the invocation's runs by ``modified``; none, "", of what is finished."""
    sets: dict[str, list[Job]] = {}
    for job in jobs:
        sets.setdefault(job.modified, []).append(job)
    due = [of[0] for of in sets.values() if fresh or not _all_over(store, of, dataset)]
    with contextlib.ExitStack() as stack:
        yield dict.fromkeys(sets, "") | {
            job.modified: stack.enter_context(tracking.parent_run(store, name, job, dataset))
            for job in due
        }


def _one_by_one(
    jobs: list[Job],
    dataset: Dataset,
    work: Callable[..., events.Event],
    folder: str,
    listener: events.Listener,
    should_stop: Callable[[], bool],
) -> list[events.Event]:
    """The engine that trains one after the other in this process."""
    done = []
    for job in jobs:
        done.append(work(job, dataset, listener, should_stop))
        listener(done[-1])
    return done


def _forgetting(
    ladder: Ladder, jobs: list[Job], dataset: Dataset, listener: events.Listener
) -> events.Listener:
    """A listener that also removes states once the last job that may use them is over."""
    waiting = Counter(ladder.place(job, dataset) for job in jobs)

    def hear(event: events.Event) -> None:
        listener(event)
        if isinstance(event, events.Finished | events.Skipped | events.Failed):
            waiting[place := ladder.place(event.job, dataset)] -= 1
            if not waiting[place]:
                ladder.forget(event.job, dataset)

    return hear


def _check_data(jobs: list[Job], dataset: Dataset, listener: events.Listener) -> None:
    """Refuses images that some job could not train on, before the first hours are spent."""
    shape = dataset.x_train.shape
    apart: dict[str, None] = {}
    for job in jobs:
        epochs = Epochs.make(job.experiment, shape[0], shape[1:3], job.seed, dataset.y_train)
        if not epochs.same_classes(dataset.y_train):  # Keras's generator refuses, its fit does not
            apart[job.experiment.name] = None
    if apart:
        text = (
            f"{', '.join(apart)}: the images that validate are of other classes than those that "
            "train, since they are taken by the order of their file names: number them mixed"
        )
        listener(events.Notice(jobs[0], text))


def _tell_of_other_images(
    store: Store, jobs: list[Job], dataset: Dataset, listener: events.Listener
) -> None:
    """Says of jobs that are begun on other images of one name that they do not go on."""
    due = {(job.experiment.hash(), str(job.seed)): job for job in jobs}
    for run in tracking.unfinished(store, {"dataset": dataset.name}):
        tags = run.data.tags
        job = due.get((tags.get("config_hash", ""), tags.get("seed", "")))
        if job and (other := tags.get("dataset_fingerprint", "")) != dataset.fingerprint:
            text = f"was begun on other images called {dataset.name} ({other[:12]}): it begins anew"
            listener(events.Notice(job, text))


def _unreported(store: Store, job: Job, dataset: Dataset) -> str:
    """The newest invocation's run, if something kept it from its report."""
    same = {"profile": job.profile, "modified": job.modified, "dataset": dataset.name}
    newest = store.search(role="ladder", **same)[:1]
    return "".join(run.info.run_id for run in newest if "ladder" not in run.data.tags)


def _all_over(store: Store, jobs: list[Job], dataset: Dataset) -> bool:
    """Whether every job is finished, and no other invocation is at work."""
    if store.search(role="ladder", status="RUNNING"):
        return False
    for job in jobs:
        same = tracking.key_of(job, dataset).same
        finished = store.search(**same, role="rung", status="FINISHED")
        # begun anew it goes on, whatever was finished before
        if not finished or tracking.unfinished(store, same):
            return False
    return True
