"""Finds or makes the one run of a job."""

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
    """Makes the key of a job's run."""
    return Key.of(job, dataset.name, dataset.fingerprint, keras.backend.backend())


def sharing(job: Job, dataset: Dataset) -> dict[str, str]:
    """Returns the tags of the runs that share a job's checkpoints."""
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

    The caller holds this machine's lock of the trajectory's checkpoints, which lie in ``folder``;
    without any, a run that has epochs is given up. ``fresh`` gives up runs of earlier invocations.

    Returns:
        The run to train, or a FINISHED one; None if another process works on it.
    """
    key = key_of(job, dataset)
    begun = unfinished(store, key.same)
    alive = [lease.alive(run) for run in begun]  # each is watched
    if any(alive):
        return None

    def earlier(run: Run) -> bool:
        return fresh and run.data.tags.get(PARENT) != parent_id

    # several runs of one key may be begun: the newest goes on, the others are given up
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
    """Removes the checkpoints of earlier invocations; returns False if somebody uses them."""
    if store.search(**same, **{PARENT: parent_id}):
        return True  # an earlier run of this invocation has removed them, and shares its own
    others = unfinished(store, same)
    if any(lease.alive(run) for run in others):
        return False
    for run in others:  # it would go on without its checkpoints
        _abandon(store, run)
    checkpoints.remove(folder)
    return True


def _claim(
    store: Store, job: Job, tags: dict[str, str], lease: Lease, going_on: str | None
) -> Run | None:
    """Takes the lease of a run that goes on, or of a new one; None if another was faster."""
    if going_on:
        # the bounds are those of its beginning, and a user may have changed the description
        for key in ("claims_sha256", "bounds", DESCRIPTION):
            tags.pop(key, None)
        run_id = going_on
        tags[leases.TAG] = lease.tag("claimed")
        store.client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        store.client.update_run(run_id, "RUNNING")
    else:
        run_id = create(store, f"{job.experiment.name} · seed {job.seed}", tags, lease)
    if store.shared:  # two machines may claim at once; all decide by the rule of Lease.ours
        time.sleep(leases.SETTLE)
        if not lease.ours(run_id, unfinished(store, Key.read(tags).same)):
            if not going_on:
                store.client.delete_run(run_id)
            return None
        store.client.set_tag(run_id, leases.TAG, lease.tag("held"))
    return store.client.get_run(run_id)


def create(store: Store, name: str, tags: dict[str, str], lease: Lease) -> str:
    """Makes exactly one run with a lease on it, and returns its id."""
    # MLflow's git context records the commit of any checkout around the script
    tags |= {leases.TAG: lease.tag("claimed")}
    tags = resolve_tags(tags, ignore=[GitRunContext])  # type: ignore[list-item] # its class
    # If a store goes away before it answers, the call is repeated and makes two runs; the token
    # tells them from other processes' runs.
    run = store.client.create_run(store.experiment_id, _now(store, tags["role"]), tags, name)
    if store.shared:
        same = f"tags.{leases.TAG} LIKE '%{lease.token}%'"
        for twin in store.client.search_runs([store.experiment_id], same):
            if twin.info.run_id != run.info.run_id:
                store.client.delete_run(twin.info.run_id)
    return run.info.run_id


def _now(store: Store, role: str) -> int:
    """Unix time in milliseconds, but later than every run's, as the clock may be set back."""
    newest = store.client.search_runs(
        [store.experiment_id], f"tags.role = '{role}'", max_results=1, order_by=["start_time DESC"]
    )
    return max([int(time.time() * 1000), *(run.info.start_time + 1 for run in newest)])


def end(store: Store, run_id: str, status: int = RunStatus.FINISHED) -> None:
    """Sets a run's final status."""
    store.client.set_terminated(run_id, RunStatus.to_string(status))


def unfinished(store: Store, same: dict[str, str]) -> list[Run]:
    """Returns the runs with these tags that were begun, neither finished nor given up."""
    return [
        run
        for run in store.search(**same, role="rung")
        if run.info.status != "FINISHED" and run.data.tags.get(leases.TAG) not in (None, ABANDONED)
    ]


def _abandon(store: Store, run: Run) -> None:
    store.client.set_tag(run.info.run_id, leases.TAG, ABANDONED)
    if run.info.status == "RUNNING":
        end(store, run.info.run_id, RunStatus.KILLED)
