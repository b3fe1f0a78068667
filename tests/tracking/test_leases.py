"""Tests checkpoints at a URL, stores that do not answer, and the leases of runs."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fsspec
import mlflow
import pytest
from conftest import SMALL, assert_same_outcome, experiment
from mlflow.exceptions import MlflowException

from resnet import Interrupted, UserError, events, store, tracking, training
from resnet.engines import cluster
from resnet.host import messages
from resnet.records import CURVES
from resnet.study import Job
from resnet.tracking import Lease, Lost, environment, leases, taking
from resnet.training import checkpoints

JOB = Job(experiment("01_template", **SMALL, training={"epochs": 2}), 0)


@pytest.fixture
def own(command):
    return store.connect(command.uri)


@pytest.fixture
def shared(own, monkeypatch):
    """Makes leases short, and returns a local store that counts as shared."""
    monkeypatch.setattr(store.Store, "shared", True)
    monkeypatch.setattr(leases, "SECONDS", 2.0)
    monkeypatch.setattr(leases, "SETTLE", 0.3)
    return own


@pytest.fixture
def lease(own, tmp_path):
    """Returns a function that makes a lease for a process that holds the file lock ``name``."""
    return lambda name="lock": Lease(own, tmp_path / name)


@pytest.fixture
def take(own, dataset, tmp_path):
    def take(lease, job=JOB, parent="parent", **options):
        options = {"lanes": 1, "fresh": False, "folder": str(tmp_path / "none")} | options
        return tracking.take(own, job, dataset, parent, lease, **options)

    return take


def test_if_several_processes_claim_a_run_at_once_only_one_gets_it(shared, lease, take):
    with ThreadPoolExecutor() as pool:
        taken = [*pool.map(take, map(lease, "abcd"))]
    assert sum(run is not None for run in taken) == 1
    assert len(shared.search(role="rung")) == 1


def test_a_run_is_taken_over_if_its_lease_stays_unchanged_even_if_clocks_are_wrong(
    shared, lease, take, monkeypatch
):
    clock, jumps = time.time, random.Random(0)
    monkeypatch.setattr(time, "time", lambda: clock() + jumps.uniform(-1e5, 1e5))
    run = take(lease("dead"))
    assert run.info.status == "RUNNING"
    other, began = lease("other"), time.monotonic()
    while not (taken := take(other)):
        time.sleep(0.1)
    assert taken.info.run_id == run.info.run_id
    assert time.monotonic() - began > leases.SECONDS


def test_a_run_is_not_taken_over_while_its_lease_is_renewed(shared, dataset, lease, take):
    first, other = lease("first"), lease("other")
    run = take(first)
    until = time.monotonic() + 3 * leases.SECONDS
    with tracking.child_run(shared, run, JOB, dataset, first):
        while time.monotonic() < until:
            assert take(other) is None
            time.sleep(0.1)
    assert take(other).info.status == "FINISHED"


def test_a_process_that_has_lost_its_run_does_not_write_to_it(shared, dataset, lease, take):
    first, thief = lease("first"), lease("thief")
    run = take(first)
    record = dict.fromkeys(CURVES, 0.5) | {"epoch": 1, "time": 1e9}
    with pytest.raises(Lost), tracking.child_run(shared, run, JOB, dataset, first) as child:
        shared.client.set_tag(run.info.run_id, leases.TAG, thief.tag("held"))
        time.sleep(leases.SECONDS)
        child.log_history([record])
    after = shared.client.get_run(run.info.run_id)
    assert "loss" not in after.data.metrics
    assert after.info.status == "RUNNING"
    assert thief.token in after.data.tags[leases.TAG]


def test_a_partly_trained_run_is_abandoned_if_its_checkpoints_are_missing(
    shared, lease, take, tmp_path
):
    """If this run continued, it would restart at epoch 1 and append to its old curves."""
    run = take(lease())
    shared.client.log_metric(run.info.run_id, "loss", 1.0, step=1)
    checkpoints.save(f"{tmp_path}/there/0001-x.npz", {}, {})
    assert take(lease(), folder=str(tmp_path / "there")).info.run_id == run.info.run_id
    assert take(lease()).info.run_id != run.info.run_id
    assert shared.client.get_run(run.info.run_id).info.status == "KILLED"


def test_a_resumed_run_keeps_the_hash_of_claims_from_its_start(shared, lease, take, monkeypatch):
    begun = take(lease())
    changed = {"claims_sha256": "edited", "host": "elsewhere"}
    later = environment.environment(shared.study) | changed
    monkeypatch.setattr(taking, "environment", lambda study: later)
    again = take(lease())
    assert again.info.run_id == begun.info.run_id
    assert again.data.tags["host"] == "elsewhere"
    assert again.data.tags["claims_sha256"] == begun.data.tags["claims_sha256"] != "edited"


def test_a_command_with_fresh_abandons_runs_of_dead_processes_but_not_its_own_runs(
    shared, dataset, lease, take
):
    longer = Job(experiment("01_template", **SMALL, training={"epochs": 3}), JOB.seed)
    theirs = take(lease("theirs"), job=longer, parent="earlier")
    ours = lease("ours")
    assert take(ours, fresh=True) is None  # their run may still use the shared checkpoints
    assert shared.client.get_run(theirs.info.run_id).info.status == "RUNNING"
    deadline = time.monotonic() + 30
    while not (run := take(ours, fresh=True)):  # until their run's lease expires
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert run.data.tags["mlflow.parentRunId"] == "parent"
    assert shared.client.get_run(theirs.info.run_id).info.status == "KILLED"
    again = take(ours, fresh=True)  # a command takes its run again if a worker is lost
    assert again.info.run_id == run.info.run_id
    (left,) = tracking.unfinished(shared, tracking.sharing(JOB, dataset))
    assert left.info.run_id == run.info.run_id


@pytest.mark.parametrize("status", ["FINISHED", "RUNNING"])
def test_a_run_of_another_backend_is_not_taken(own, dataset, lease, take, status):
    tags = tracking.key_of(JOB, dataset).same | {"role": "rung", "backend": "other"}
    theirs = own.client.create_run(own.experiment_id, tags=tags | {leases.TAG: "held x"})
    own.client.update_run(theirs.info.run_id, status)
    assert take(lease()).info.run_id != theirs.info.run_id
    assert own.client.get_run(theirs.info.run_id).info.status == status


def test_runs_are_found_by_their_overrides_even_if_these_contain_quotes(own):
    texts = ["", "model.dropout=0.1", "model={architecture: 'vgg'}", 'x="it\'s"']
    made = {
        text: own.client.create_run(own.experiment_id, tags={"role": "rung", "modified": text})
        for text in texts
    }
    for text, run in made.items():
        found = own.search(role="rung", modified=text)
        assert [r.info.run_id for r in found] == [run.info.run_id], text


# -- checkpoints --------------------------------------------------------------------------------


def test_a_training_resumes_exactly_from_checkpoints_at_a_url(dataset, tmp_path):
    e = experiment("01_template", **SMALL, training={"epochs": 2})
    url, told = "memory://bucket/checkpoints", []
    calls = iter(range(7))
    with pytest.raises(Interrupted):
        training.train(e, dataset, 0, url, should_stop=lambda: next(calls, None) is None)
    assert fsspec.filesystem("memory").find("/bucket/checkpoints")
    parts = training.train(e, dataset, 0, url, told.append)
    assert isinstance(told[0], events.Resumed)
    assert told[0].step > 0
    assert told[0].differs == {}
    assert_same_outcome(parts, training.train(e, dataset, 0, tmp_path))
    checkpoints.remove(url)
    assert not fsspec.filesystem("memory").find("/bucket/checkpoints")


def test_a_difference_that_is_logged_twice_is_in_the_tag_once(own):
    run_id = own.client.create_run(own.experiment_id).info.run_id
    child = tracking.RunWriter(own, run_id, Lease(own, Path("x")))
    for differs in ({"threads": ("2", "1")}, {"threads": ("2", "1"), "device": ("a", "b")}):
        child.log_differences(differs)
    tags = own.client.get_run(run_id).data.tags
    assert tags["resumed_elsewhere"] == "threads: 2 -> 1; device: a -> b"


@pytest.mark.parametrize("place", ["file/below", "nonsense://x", "s3://no-such-bucket/x"])
def test_the_error_for_an_unusable_checkpoint_folder_has_one_line(tmp_path, place):
    (tmp_path / "file").write_text("")
    folder = place if "://" in place else str(tmp_path / place)
    with pytest.raises(UserError, match="cannot be written") as told:
        checkpoints.prepare(folder)
    assert str(told.value).isprintable()


# -- the store ----------------------------------------------------------------------------------


def test_an_unusable_cluster_is_refused(dataset):
    for address in ("127.0.0.1:1", "127.0.0.1"):
        with pytest.raises(UserError, match=f"--ray {address}: cannot join a cluster"):
            cluster._start(None, address, dataset)
    node = {"NodeID": "x", "NodeManagerAddress": "here", "Alive": True, "Resources": {"CPU": 2.0}}
    ray = SimpleNamespace(nodes=lambda: [node, node | {"Alive": False, "Resources": {"GPU": 8.0}}])
    assert cluster._nodes_with_room(ray, 2, None) == {"x": "here"}
    with pytest.raises(UserError, match="no machine has 1 CPUs and 1 GPUs for a run"):
        cluster._nodes_with_room(ray, 1, 1.0)


def _raise(error):
    if error:
        raise error


def test_calls_wait_until_the_store_answers_and_do_not_log_metrics_twice(shared, monkeypatch):
    """Each call does its work, but the answers to the first two calls are lost."""
    run = shared.client.create_run(shared.experiment_id)
    lost, told = iter(range(2)), []
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def log():
        shared.client.log_batch(run.info.run_id, [mlflow.entities.Metric("loss", 0.5, 1000, 1)])
        if next(lost, None) is not None:
            raise MlflowException("API request to http://x failed with exception")

    shared.waiting(told.append, lambda: False).patiently(log)
    assert [text.split(" (")[0] for text in told] == [
        "the tracking store does not answer",
        "the tracking store answers again",
    ]
    assert len(shared.client.get_metric_history(run.info.run_id, "loss")) == 1
    # if several runs log the same new dataset at once, MLflow accepts only one of these calls
    collisions = iter([MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed")])
    shared.waiting(told.append, lambda: True).patiently(lambda: _raise(next(collisions, None)))
    with pytest.raises(Interrupted):
        shared.waiting(told.append, lambda: True).patiently(_raise, ConnectionError())


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:s3/c@r:et@host/db", "postgresql://me:***@host/db"),
        ("http://host:5000/x me@home", "http://host:5000/x me@home"),
        ("host=x password=s3cret user=y", "host=x password=*** user=y"),
        ("http://127.0.0.1:5000/#/models/x?a=@best", "http://127.0.0.1:5000/#/models/x?a=@best"),
        ("https://me:s3cr@t@host/a@b", "https://me:***@host/a@b"),
    ],
)
def test_passwords_are_masked(text, masked):
    assert messages.mask(text) == masked
