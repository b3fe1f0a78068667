"""Runs the jobs of one command and manages their MLflow runs, locks and checkpoints."""

import contextlib
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
"""The number of workers that a run may lose within one epoch."""

Engine = Callable[..., None]
"""``engine(jobs, invocation, listener, should_stop)`` runs jobs.

An engine takes jobs from :func:`next_job`. It passes all events, including the end of each job, to
``listener`` in the caller's thread. If a worker is lost, another worker gets its job. When
``should_stop`` returns True, all jobs write a checkpoint and stop.
"""


@dataclass(frozen=True)
class Invocation:
    """The data, store and settings that all jobs of one command share.

    ``parents`` maps each value of :attr:`Job.modified` to the id of a parent run in MLflow. Only a
    sweep has several parent runs. ``fresh`` makes finished and interrupted runs start from scratch.
    ``checkpoints`` is the path or URL of the folder of all checkpoints.
    """

    dataset: Dataset
    store: Store
    parents: Mapping[str, str]
    fresh: bool
    checkpoints: str

    def folder(self, job: Job) -> str:
        """Returns the checkpoint folder that all jobs of one trajectory share."""
        names = job.experiment.trajectory()[:16], self.dataset.fingerprint[:12], f"seed{job.seed}"
        return "/".join((self.checkpoints, "-".join((*names, keras.backend.backend()))))

    def lock(self, job: Job) -> FileLock:
        """Returns this machine's lock for a trajectory. The lock is released if its holder dies."""
        self.store.checkpoints.mkdir(parents=True, exist_ok=True)
        return FileLock(self.store.checkpoints / f"{self.folder(job).rpartition('/')[2]}.lock")

    def run(
        self,
        job: Job,
        listener: events.Listener,
        should_stop: Callable[[], bool],
        losses: int = 0,
        lane: Lane | None = None,
    ) -> events.Ended:
        """Skips a finished job, resumes an interrupted one, and trains any other job.

        ``losses`` is the number of workers that the job has lost since its last complete epoch.

        Raises:
            Interrupted: ``should_stop`` returned True; a checkpoint was written if training began.
        """
        store = self.store.waiting(lambda text: listener(events.Notice(job, text)), should_stop)
        invocation, lock = replace(self, store=store), self.lock(job)
        lanes = lane.program.lanes if lane else 1
        try:
            while True:
                lease, waited = Lease(store, Path(lock.lock_file)), False
                while not (run := invocation._take(job, lock, lease, lanes)):
                    if not waited:
                        listener(events.Notice(job, "waits while another process trains it"))
                    waited = True
                    if should_stop():
                        raise Interrupted
                    time.sleep(1)
                if run.info.status == "FINISHED":
                    return _skipped(job, run, listener)
                listener(events.Started(job, lanes))
                try:
                    with tracking.child_run(store, run, job, self.dataset, lease) as child:
                        return self._train(job, child, listener, should_stop, losses, lane)
                except Lost:
                    listener(events.Notice(job, "another process has taken over the run"))
        except Interrupted:
            raise
        except UserError as error:
            return events.Failed(job, hide(str(error)))
        except Exception as error:  # the other jobs go on
            return events.Failed(job, mask(f"{type(error).__name__}: {error}"))
        finally:
            lock.release()
            if not lane:  # clear_session would break the tracing in other lanes' threads
                keras.backend.clear_session()

    def _take(self, job: Job, lock: FileLock, lease: Lease, lanes: int) -> Run | None:
        try:
            if not lock.is_locked:
                lock.acquire(timeout=0)
        except Timeout:
            return None
        return tracking.take(
            *(self.store, job, self.dataset, self.parents[job.modified], lease),
            lanes=lanes,
            fresh=self.fresh,
            folder=self.folder(job),
        )

    def _train(
        self,
        job: Job,
        child: tracking.RunWriter,
        listener: events.Listener,
        should_stop: Callable[[], bool],
        losses: int,
        lane: Lane | None,
    ) -> events.Ended:
        def log(event: events.Event) -> None:
            if isinstance(event, events.Resumed) and event.differs:
                child.log_differences(event.differs)
            if isinstance(event, events.Resumed | events.Epoch):
                child.log_history(event.history)
            listener(replace(event, job=job))  # the job in train()'s events lacks profile and --set

        def stop() -> bool:
            child.lease.raise_if_lost()
            return should_stop()

        try:
            if losses > WORKERS_LOST:
                raise RuntimeError(
                    f"the run lost its worker {losses} times without completing an epoch"
                )
            folder = self.folder(job)
            outcome = train(job.experiment, self.dataset, job.seed, folder, log, stop, lane)
            listener(events.Phase(job, "recording"))
            child.log_outcome(job, self.dataset, outcome)
        except (Interrupted, Lost):
            raise
        except Exception:
            child.log_failure(hide(traceback.format_exc()))
            raise
        return events.Finished(job, outcome.summary())

    def remove_checkpoints(self, job: Job) -> None:
        """Removes a trajectory's checkpoints, unless an unfinished run needs them."""
        with contextlib.suppress(Timeout), self.lock(job).acquire(timeout=0):
            if not tracking.unfinished(self.store, tracking.sharing(job, self.dataset)):
                checkpoints.remove(self.folder(job))


def _skipped(job: Job, run: Run, listener: events.Listener) -> events.Ended:
    name = run.data.tags.get("rung", job.experiment.name)
    if name != job.experiment.name:
        listener(events.Notice(job, f"has the same settings as {name}, which was trained before"))
    return events.Skipped(job, run.info.run_id, run.data.metrics.get("test_accuracy", float("nan")))


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
    """Runs the jobs in order. Skips finished jobs and resumes interrupted ones.

    All jobs have the same profile. ``name`` names the parent runs in MLflow. ``folder`` is the path
    or URL of the checkpoint folder, which is beside the store by default. ``fresh`` makes finished
    and interrupted runs start from scratch. Without an engine, jobs run one by one in this process.

    Returns:
        The number of failed jobs, and a dictionary from each value of :attr:`Job.modified` to a
        parent run's id. A value that needs no new parent run maps to the id of the newest earlier
        parent run, or to "" if that earlier run already has the ladder's metrics.

    Raises:
        Interrupted: ``should_stop`` returned True; the running jobs have written checkpoints.
        UserError: the dataset is too small, or the checkpoint folder or cluster cannot be used.
    """
    folder = folder or str(store.checkpoints)
    if "://" not in folder:
        folder = os.path.abspath(folder)  # noqa: PTH100 - workers run in other folders
    _check_data(jobs, dataset, listener)
    # a full disk or a bucket without write access is reported now and not after the first epoch
    checkpoints.remove(checkpoints.prepare(folder))
    patient = store.waiting(lambda text: listener(events.Notice(jobs[0], text)), should_stop)
    with _parents(patient, name, jobs, dataset, fresh) as parents:
        # workers get the plain store, because the waiting store reports to this process
        invocation = Invocation(dataset, store, parents, fresh, folder)
        ended: list[events.Ended] = []
        left = Counter(job.trajectory() for job in jobs)

        def follow(event: events.Event) -> None:
            listener(event)
            if isinstance(event, events.Ended):
                ended.append(event)
                left[event.job.trajectory()] -= 1
                if not left[event.job.trajectory()]:  # the trajectory's last job has ended
                    replace(invocation, store=patient).remove_checkpoints(event.job)

        run_all = engine if engine and any(parents.values()) else _one_by_one
        run_all(jobs, invocation, follow, should_stop)
        if len(ended) < len(jobs) and should_stop():
            raise Interrupted
        failed = sum(isinstance(event, events.Failed) for event in ended)
        # skipped jobs count too: an earlier command may have died before it registered models
        if failed < len(ended) and not jobs[0].modified:
            patient.patiently(tracking.register, store, dataset, jobs[0].profile)
    return failed, {
        modified: parents[modified] or _unreported(patient, job, dataset)
        for modified, job in {job.modified: job for job in jobs}.items()
    }


def next_job(waiting: list[Job], running: Iterable[Job]) -> Job | None:
    """Removes and returns the first waiting job whose trajectory is not being trained."""
    busy = {job.trajectory() for job in running}
    for job in waiting:
        if job.trajectory() not in busy:
            waiting.remove(job)
            return job
    return None


def _one_by_one(
    jobs: list[Job],
    invocation: Invocation,
    listener: events.Listener,
    should_stop: Callable[[], bool],
) -> None:
    for job in jobs:
        listener(invocation.run(job, listener, should_stop))


@contextlib.contextmanager
def _parents(
    store: Store, name: str, jobs: list[Job], dataset: Dataset, fresh: bool
) -> Iterator[dict[str, str]]:
    """Yields {``modified`` value: id of a new parent run}. Values without a due job map to ""."""
    sets: dict[str, list[Job]] = {}
    for job in jobs:
        sets.setdefault(job.modified, []).append(job)
    due = [of[0] for of in sets.values() if fresh or not _all_over(store, of, dataset)]
    with contextlib.ExitStack() as stack:
        yield dict.fromkeys(sets, "") | {
            job.modified: stack.enter_context(tracking.parent_run(store, name, job, dataset))
            for job in due
        }


def _check_data(jobs: list[Job], dataset: Dataset, listener: events.Listener) -> None:
    """Raises a UserError for too few images. Warns if training and validation classes differ."""
    n, *shape, _ = dataset.x_train.shape
    differing: dict[str, None] = {}
    for job in jobs:
        epochs = Epochs.make(job.experiment, n, (shape[0], shape[1]), job.seed, dataset.y_train)
        if not epochs.same_classes(dataset.y_train):
            differing[job.experiment.name] = None
    if differing:
        text = (
            f"{', '.join(differing)}: the validation images have other classes than the training "
            "images. Images are ordered by file name, so choose names that mix the classes"
        )
        listener(events.Notice(jobs[0], text))


def _unreported(store: Store, job: Job, dataset: Dataset) -> str:
    """Returns the newest parent run's id, or "" if that run already has the ladder's metrics."""
    same = {"profile": job.profile, "modified": job.modified, "dataset": dataset.name}
    newest = store.search(role="ladder", **same)[:1]
    return "".join(run.info.run_id for run in newest if "ladder" not in run.data.tags)


def _all_over(store: Store, jobs: list[Job], dataset: Dataset) -> bool:
    # a job may have an unfinished run beside a finished one, because of --fresh
    return not store.search(role="ladder", status="RUNNING") and all(
        store.search(**same, role="rung", status="FINISHED")
        and not tracking.unfinished(store, same)
        for same in (tracking.key_of(job, dataset).same for job in jobs)
    )
