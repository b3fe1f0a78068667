"""Which run a job is: the one that was begun or finished somewhere, or a new one; exactly one."""

import time

from mlflow.entities import Run, RunStatus, RunTag
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags

from resnet.data import Dataset
from resnet.network import keras
from resnet.records import DESCRIPTION, PARENT, describe
from resnet.store import Store
from resnet.study import Job, Key
from resnet.tracking import leases
from resnet.tracking.environment import environment
from resnet.tracking.leases import ABANDONED, Lease
from resnet.training import checkpoints


def key_of(job: Job, dataset: Dataset) -> Key:
    """Makes the key of a job's run."""
    return Key.of(job, dataset.name, dataset.fingerprint, keras.backend.backend())


def sharing(job: Job, dataset: Dataset) -> dict[str, str]:
    """Returns the tags of the runs that go on from the same states."""
    same = key_of(job, dataset).same | {"trajectory": job.experiment.trajectory()}
    return {key: value for key, value in same.items() if key not in ("config_hash", "modified")}


def take(
    store: Store,
    job: Job,
    dataset: Dataset,
    parent_id: str,
    lease: Lease,
    *,
    lanes: int,
    fresh: bool,
    folder: str,
) -> Run | None:
    """Finds the run of a job, wherever it was begun, or makes it, and takes its lease.

    The caller holds the lock of the job's states on this machine.

    Args:
        store: where.
        job: what is to be trained.
        dataset: on which images.
        parent_id: the invocation's run.
        lease: what it is taken with.
        lanes: how many the program has that trains it.
        fresh: give up what earlier invocations began or finished.
        folder: of the trajectory's states. Without any a run that has epochs is given up, lest its
            curves go on with another training's.

    Returns:
        The run to train; the FINISHED one if that is done; None if another process is at it.
    """
    key = key_of(job, dataset)
    begun = unfinished(store, key.same)
    alive = [lease.alive(run) for run in begun]  # each is watched
    if any(alive):
        return None

    def earlier(run: Run) -> bool:
        return fresh and run.data.tags.get(PARENT) != parent_id

    # Two runs of one key were both begun if a server went away between making a run and saying so:
    # the newest goes on, the others are given up.
    going_on, resumable = None, checkpoints.visible(folder)
    for run in begun:
        if going_on or earlier(run) or not (resumable or "loss" not in run.data.metrics):
            _abandon(store, run)
        else:
            going_on = run.info.run_id
    if not going_on:
        for run in store.search(**key.same, role="rung", status="FINISHED"):
            if not earlier(run):
                return run
        if fresh and not _clear(store, sharing(job, dataset), parent_id, lease, folder):
            return None
    tags = key.tags | environment(store.study) | {"lanes": str(lanes), PARENT: parent_id}
    tags |= {"role": "rung", "trajectory": job.experiment.trajectory()} | key.series()
    tags[DESCRIPTION] = describe(job.experiment, dataset.name, dataset.fingerprint)
    return _claim(store, job, tags, lease, going_on)


def _clear(store: Store, same: dict[str, str], parent_id: str, lease: Lease, folder: str) -> bool:
    """Removes the states that earlier invocations left; False if somebody is at them."""
    # Of several runs that share states, the first of this invocation clears them and the others go
    # on from what it trains.
    if store.search(**same, **{PARENT: parent_id}):
        return True  # this invocation's own by now
    others = unfinished(store, same)
    if any(lease.alive(run) for run in others):
        return False
    for run in others:  # it would go on without its states
        _abandon(store, run)
    checkpoints.remove(folder)
    return True


def _claim(
    store: Store, job: Job, tags: dict[str, str], lease: Lease, going_on: str | None
) -> Run | None:
    """Takes the lease of a run that goes on, or of a new one; None if another was faster.

    Where several machines share a store two may claim at once: each waits until everyone's claim
    can be seen, then all decide by the same rule (:meth:`resnet.tracking.leases.Lease.ours`).
    """
    if going_on:
        # the bounds that there were when it began, and a description that may be its user's by now
        for key in ("claims_sha256", "bounds", DESCRIPTION):
            tags.pop(key, None)
        run_id = going_on
        tags[leases.TAG] = lease.tag("claimed")
        store.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        store.client.update_run(run_id, "RUNNING")
    else:
        run_id = create(store, f"{job.experiment.name} · seed {job.seed}", tags, lease)
    if store.shared:
        time.sleep(leases.SETTLE)
        if not lease.ours(run_id, unfinished(store, Key.read(tags).same)):
            if not going_on:
                store.client.delete_run(run_id)
            return None
        store.client.set_tag(run_id, leases.TAG, lease.tag("held"))
    return store.client.get_run(run_id)


def create(store: Store, name: str, tags: dict[str, str], lease: Lease) -> str:
    """Makes a run with a lease on it, exactly one, and returns its id."""
    # MLflow takes the commit of any checkout around the script for the script's
    tags |= {leases.TAG: lease.tag("claimed")}
    tags = resolve_tags(tags, ignore=[GitRunContext])  # type: ignore[list-item] # its class
    # The one call that does harm if it is done twice: it makes two runs, which the token tells
    # apart from anybody else's.
    run = store.client.create_run(store.experiment_id, _now(store, tags["role"]), tags, name)
    if store.shared:  # one that went away may have made another before it said so
        same = f"tags.{leases.TAG} LIKE '%{lease.token}%'"
        for twin in store.client.search_runs([store.experiment_id], same):
            if twin.info.run_id != run.info.run_id:
                store.client.delete_run(twin.info.run_id)
    return run.info.run_id


def _now(store: Store, role: str) -> int:
    """Unix time in milliseconds, or what makes a run the newest where the clock was set back."""
    newest = store.client.search_runs(
        [store.experiment_id], f"tags.role = '{role}'", max_results=1, order_by=["start_time DESC"]
    )
    return max([int(time.time() * 1000), *(run.info.start_time + 1 for run in newest)])


def end(store: Store, run_id: str, status: int = RunStatus.FINISHED) -> None:
    """Ends a run."""
    store.client.set_terminated(run_id, RunStatus.to_string(status))


def unfinished(store: Store, same: dict[str, str]) -> list[Run]:
    """Runs of an identity that were begun, neither finished nor given up, newest first."""
    return [
        run
        for run in store.search(**same, role="rung")
        if run.info.status != "FINISHED"
        # before there were leases, an owner's name was taken from a run that was given up
        and run.data.tags.get(leases.TAG, run.data.tags.get("owner")) not in (None, ABANDONED)
    ]


def _abandon(store: Store, run: Run) -> None:
    store.client.set_tag(run.info.run_id, leases.TAG, ABANDONED)
    if run.info.status == "RUNNING":
        end(store, run.info.run_id, RunStatus.KILLED)
