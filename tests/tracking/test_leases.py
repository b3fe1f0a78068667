"""Who trains what: leases, checkpoints at a URL and a store that comes and goes."""

import random
import shutil
import threading
import time
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
def own(empty, tmp_path):
    """A store of the test's own."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    return store.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def shared(own, monkeypatch):
    """A real store that takes itself for one of many machines, with short leases."""
    monkeypatch.setattr(store.Store, "shared", True)
    monkeypatch.setattr(leases, "SECONDS", 2.0)
    monkeypatch.setattr(leases, "SETTLE", 0.3)
    return own


def take(where, lease, dataset, tmp_path, job=JOB, parent="parent", **options):
    options = {"lanes": 1, "fresh": False, "folder": str(tmp_path / "none")} | options
    return tracking.take(where, job, dataset, parent, lease, **options)


def test_of_many_that_come_at_once_one_gets_the_run(shared, dataset, tmp_path):
    """Each as if on a machine of its own."""
    taken = {}

    def come(number):
        taken[number] = take(shared, Lease(shared, tmp_path / str(number)), dataset, tmp_path)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(run is not None for run in taken.values()) == 1
    assert len(shared.search(role="rung")) == 1


def test_an_abandoned_lease_is_taken_over_when_it_was_watched_for_its_length(
    shared,
    dataset,
    tmp_path,
    monkeypatch,
):
    """Whatever the clocks say: this one jumps about."""
    clock, jumps = time.time, random.Random(0)
    monkeypatch.setattr(time, "time", lambda: clock() + jumps.uniform(-1e5, 1e5))
    run = take(shared, Lease(shared, tmp_path / "dead"), dataset, tmp_path)
    assert run.info.status == "RUNNING"
    other, began = Lease(shared, tmp_path / "other"), time.monotonic()
    while not (taken := take(shared, other, dataset, tmp_path)):
        time.sleep(0.1)
    assert taken.info.run_id == run.info.run_id
    assert time.monotonic() - began > leases.SECONDS


def test_a_renewed_lease_is_never_taken_over(shared, dataset, tmp_path):
    first, other = Lease(shared, tmp_path / "first"), Lease(shared, tmp_path / "other")
    run = take(shared, first, dataset, tmp_path)
    until = time.monotonic() + 3 * leases.SECONDS
    with tracking.child_run(shared, run, JOB, dataset, first):
        while time.monotonic() < until:
            assert take(shared, other, dataset, tmp_path) is None
            time.sleep(0.1)
    assert take(shared, other, dataset, tmp_path).info.status == "FINISHED"


def test_who_lost_the_run_writes_no_more(shared, dataset, tmp_path):
    lease = Lease(shared, tmp_path / "first")
    run = take(shared, lease, dataset, tmp_path)
    thief = Lease(shared, tmp_path / "thief")
    record = dict.fromkeys(CURVES, 0.5) | {"epoch": 1, "time": 1e9}
    with (
        pytest.raises(Lost),
        tracking.child_run(shared, run, JOB, dataset, lease) as child,
    ):
        shared.client.set_tag(run.info.run_id, leases.TAG, thief.tag("held"))
        time.sleep(leases.SECONDS)
        child.log_history([record])
    after = shared.client.get_run(run.info.run_id)
    assert "loss" not in after.data.metrics
    assert after.info.status == "RUNNING"
    assert thief.token in after.data.tags[leases.TAG]


def test_without_its_checkpoint_a_run_with_epochs_is_given_up(shared, dataset, tmp_path):
    """Its curves must not go on with another machine's."""
    run = take(shared, Lease(shared, tmp_path / "lock"), dataset, tmp_path)
    shared.client.log_metric(run.info.run_id, "loss", 1.0, step=1)
    checkpoints.save(f"{tmp_path}/there/0001-x.npz", {}, {})
    there = take(
        shared, Lease(shared, tmp_path / "lock"), dataset, tmp_path, folder=str(tmp_path / "there")
    )
    assert there.info.run_id == run.info.run_id
    gone = take(shared, Lease(shared, tmp_path / "lock"), dataset, tmp_path)
    assert gone.info.run_id != run.info.run_id
    assert shared.client.get_run(run.info.run_id).info.status == "KILLED"


def test_a_run_taken_up_keeps_the_hash_of_the_claims_as_it_began(
    shared, dataset, tmp_path, monkeypatch
):
    lock = tmp_path / "lock"
    begun = take(shared, Lease(shared, lock), dataset, tmp_path)
    changed = {"claims_sha256": "edited", "host": "elsewhere"}
    later = environment.environment(shared.study) | changed
    monkeypatch.setattr(taking, "environment", lambda study: later)
    again = take(shared, Lease(shared, lock), dataset, tmp_path)
    assert again.info.run_id == begun.info.run_id
    assert again.data.tags["host"] == "elsewhere"
    assert again.data.tags["claims_sha256"] == begun.data.tags["claims_sha256"] != "edited"


def test_fresh_waits_for_others_and_gives_up_what_they_began_but_not_its_own(
    shared, dataset, tmp_path
):
    longer = Job(experiment("01_template", **SMALL, training={"epochs": 3}), JOB.seed)
    theirs = take(
        shared, Lease(shared, tmp_path / "theirs"), dataset, tmp_path, job=longer, parent="earlier"
    )
    lease = Lease(shared, tmp_path / "ours")
    assert take(shared, lease, dataset, tmp_path, fresh=True) is None  # theirs shares its states
    assert shared.client.get_run(theirs.info.run_id).info.status == "RUNNING"
    deadline = time.monotonic() + 30
    while not (run := take(shared, lease, dataset, tmp_path, fresh=True)):  # theirs is not renewed
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert run.data.tags["mlflow.parentRunId"] == "parent"
    assert shared.client.get_run(theirs.info.run_id).info.status == "KILLED"
    again = take(shared, lease, dataset, tmp_path, fresh=True)  # as if its worker was lost
    assert again.info.run_id == run.info.run_id
    (left,) = tracking.unfinished(shared, tracking.sharing(JOB, dataset))
    assert left.info.run_id == run.info.run_id


def test_another_backend_s_run_is_another(own, dataset, tmp_path):
    """Finished or begun: its states lie elsewhere, and its lock is no lock here."""
    for status in ("FINISHED", "RUNNING"):
        tags = tracking.key_of(JOB, dataset).same | {"role": "rung", "backend": "other"}
        theirs = own.client.create_run(own.experiment_id, tags=tags | {leases.TAG: "held x"})
        own.client.update_run(theirs.info.run_id, status)
        run = take(own, Lease(own, tmp_path / "lock"), dataset, tmp_path)
        assert run.info.run_id != theirs.info.run_id
        assert own.client.get_run(theirs.info.run_id).info.status == status


def test_runs_are_found_by_whatever_set_says(own):
    texts = ["", "model.dropout=0.1", "model={architecture: 'vgg'}", 'x="it\'s"']
    made = {
        text: own.client.create_run(own.experiment_id, tags={"role": "rung", "modified": text})
        for text in texts
    }
    for text, run in made.items():
        found = own.search(role="rung", modified=text)
        assert [r.info.run_id for r in found] == [run.info.run_id], text


# -- checkpoints --------------------------------------------------------------------------------


def test_a_training_goes_on_from_a_url(dataset, tmp_path):
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


def test_what_is_different_is_tagged_once(own):
    """Whoever goes on reads every earlier epoch again, and what was different then."""
    run_id = own.client.create_run(own.experiment_id).info.run_id
    child = tracking.RunWriter(own, run_id, Lease(own, Path("x")))
    for differs in ({"threads": ("2", "1")}, {"threads": ("2", "1"), "device": ("a", "b")}):
        child.log_differences(differs)
    tags = own.client.get_run(run_id).data.tags
    assert tags["resumed_elsewhere"] == "threads: 2 -> 1; device: a -> b"


@pytest.mark.parametrize("place", ["file/below", "nonsense://x", "s3://no-such-bucket/x"])
def test_where_no_checkpoint_can_be_written_is_told_in_one_line(tmp_path, place):
    (tmp_path / "file").write_text("")
    folder = place if "://" in place else str(tmp_path / place)
    with pytest.raises(UserError, match="cannot be written") as told:
        checkpoints.prepare(folder)
    assert str(told.value).isprintable()


# -- the store ----------------------------------------------------------------------------------


def test_a_cluster_that_cannot_be_used_is_one_line_at_once(dataset):
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


def test_a_store_that_goes_away_is_waited_for_and_nothing_is_doubled(shared, monkeypatch):
    """Each call does its work, and the answer to the first two is lost."""
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
    # MLflow refuses a new dataset to all but one of the runs that log it at once
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
