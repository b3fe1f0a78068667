"""Finds or creates the run of a job."""

import time

from mlflow.entities import Run, RunStatus, RunTag
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags

from resnet.data import Dataset
from resnet.network import keras
from resnet.records.artifacts import DESCRIPTION, PARENT, describe
from resnet.store import Store
from resnet.study import Job, Key
from resnet.tracking import leases
from resnet.tracking.environment import environment
from resnet.tracking.leases import ABANDONED, Lease
from resnet.training import checkpoints


def key_of(job: Job, dataset: Dataset) -> Key:
    """Returns the tags that identify the runs of a job."""
    return Key.of(job, dataset.name, dataset.fingerprint, keras.backend.backend())


def sharing(job: Job, dataset: Dataset) -> dict[str, str]:
    """Returns the common tags of all runs that share a job's checkpoints."""
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
    """Returns a job's finished run, or a run that this process has leased and must train.

    Returns None if another process trains the run or uses its checkpoints. The caller must hold
    this machine's lock for the checkpoints in ``folder``. If ``folder`` does not exist, unfinished
    runs with logged epochs are abandoned. With ``fresh``, unfinished runs of earlier commands are
    abandoned, and finished runs of earlier commands are ignored.
    """
    key = key_of(job, dataset)
    begun = unfinished(store, key.same)
    alive = [lease.alive(run) for run in begun]  # a list, because alive() must see every lease
    if any(alive):
        return None

    def earlier(run: Run) -> bool:
        return fresh and run.data.tags.get(PARENT) != parent_id

    # if several runs of this job are unfinished, only the newest continues
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
    """Removes the checkpoints of earlier commands; returns False if another process uses them."""
    if store.search(**same, **{PARENT: parent_id}):
        return True  # this command has already replaced the old checkpoints
    others = unfinished(store, same)
    if any(lease.alive(run) for run in others):
        return False
    for run in others:  # without checkpoints, these runs cannot continue
        _abandon(store, run)
    checkpoints.remove(folder)
    return True


def _claim(
    store: Store, job: Job, tags: dict[str, str], lease: Lease, going_on: str | None
) -> Run | None:
    """Claims the run ``going_on`` or a new run. Returns None if another process gets the run."""
    if going_on:
        # a resumed run keeps its original bounds, and any description that a user has edited
        for key in ("claims_sha256", "bounds", DESCRIPTION):
            tags.pop(key, None)
        tags[leases.TAG] = lease.tag("claimed")
        store.client.log_batch(going_on, tags=[RunTag(k, v) for k, v in tags.items()])
        store.client.update_run(going_on, "RUNNING")
    name = f"{job.experiment.name} · seed {job.seed}"
    run_id = going_on or create(store, name, tags, lease)
    if store.shared:  # if two machines claim this job at once, Lease.ours lets only one train it
        time.sleep(leases.SETTLE)
        if not lease.ours(run_id, unfinished(store, Key.read(tags).same)):
            if not going_on:
                store.client.delete_run(run_id)
            return None
        store.client.set_tag(run_id, leases.TAG, lease.tag("held"))
    return store.client.get_run(run_id)


def create(store: Store, name: str, tags: dict[str, str], lease: Lease) -> str:
    """Creates exactly one run with a lease, and returns the run's id."""
    # GitRunContext would record the commit of any repository that contains the script
    tags |= {leases.TAG: lease.tag("claimed")}
    tags = resolve_tags(tags, ignore=[GitRunContext])  # type: ignore[list-item] # classes are valid
    # the new run must be the newest, even if the clock was set back
    same = f"tags.role = '{tags['role']}'"
    newest = store.client.search_runs(
        [store.experiment_id], same, max_results=1, order_by=["start_time DESC"]
    )
    start = max([int(time.time() * 1000), *(run.info.start_time + 1 for run in newest)])
    # If the store's answer is lost, the repeated call creates a second run with this lease's token.
    run = store.client.create_run(store.experiment_id, start, tags, name)
    if store.shared:
        same = f"tags.{leases.TAG} LIKE '%{lease.token}%'"
        for twin in store.client.search_runs([store.experiment_id], same):
            if twin.info.run_id != run.info.run_id:
                store.client.delete_run(twin.info.run_id)
    return run.info.run_id


def end(store: Store, run_id: str, status: int = RunStatus.FINISHED) -> None:
    """Sets a run's final status."""
    store.client.set_terminated(run_id, RunStatus.to_string(status))


def unfinished(store: Store, same: dict[str, str]) -> list[Run]:
    """Returns the runs that have these tags and are neither finished nor abandoned."""
    return [
        run
        for run in store.search(**same, role="rung")
        if run.info.status != "FINISHED" and run.data.tags.get(leases.TAG) not in (None, ABANDONED)
    ]


def _abandon(store: Store, run: Run) -> None:
    store.client.set_tag(run.info.run_id, leases.TAG, ABANDONED)
    if run.info.status == "RUNNING":
        end(store, run.info.run_id, RunStatus.KILLED)
