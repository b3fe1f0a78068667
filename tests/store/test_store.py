"""Which file a store is, whose commit a run has, and what an unusual store is told as."""

import contextlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import alembic.command
import pytest
from conftest import ROOT, SMALL, experiment
from mlflow import MlflowClient
from mlflow.store.db import utils
from rich.console import Console

from report import analysis
from resnet import UserError, engines, events, host, store, tracking
from resnet.host import addresses
from resnet.study import Job, Study, change
from resnet.terminal.display import Display
from resnet.tracking import environment, runs

STUDY = Study.open()
JOB = Job(experiment("01_template", **SMALL, training={"epochs": 3}), 0)


@pytest.fixture
def own(empty, tmp_path):
    """A store of the test's own."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    return store.connect(addresses.address(tmp_path / "mlflow.db"))


def runs_in(database):
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return {run_id for (run_id,) in opened.execute("SELECT run_uuid FROM runs")}


def told(call, *arguments, **options):
    """The one line that a mistake is told in."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert str(error.value).isprintable()
    return str(error.value)


# -- the address --------------------------------------------------------------------------------


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("name", ["a%20b", "a?b", "100%", "a#b\n", "\udcff"])
def test_mlflow_writes_the_file_that_is_said_or_none(empty, name, quoted):
    """As the project writes an address, and as a user who knows of no quoting does."""
    with tempfile.TemporaryDirectory() as made:
        top = Path(made).resolve()
        for each in {name, name.replace("%20", " "), name.partition("?")[0].strip() or "x"}:
            (top / each).mkdir(exist_ok=True)
            shutil.copyfile(empty, top / each / "mlflow.db")
        before = {*top.rglob("*")}
        file = top / name / "mlflow.db"
        uri = addresses.address(file) if quoted else f"sqlite:///{file}"
        try:
            opened = store.connect(uri)
        except UserError as error:
            assert str(error).isprintable()
            assert {*top.rglob("*")} == before
            assert not quoted or "\udcff" in name  # of a file system that is not UTF-8
            return
        said = addresses.file_of(opened.uri)
        assert said == file or not quoted
        assert said.parent == opened.checkpoints.parent
        run = opened.client.create_run(opened.experiment_id)
        opened.client.log_text(run.info.run_id, "here", "a.txt")
        path = opened.client.download_artifacts(run.info.run_id, "a.txt", made)
        assert Path(path).read_text() == "here"
        assert runs_in(said) == {run.info.run_id}
        new = {*top.rglob("*")} - before - {top / "a.txt"}
        assert all(path.is_relative_to(said.parent) for path in new)


@pytest.mark.parametrize(
    "uri",
    ["x.db?timeout=60", "x.db?", ":memory:", "", "%00", "file:x.db?uri=true&mode=rwc"],
)
def test_what_is_more_or_less_than_a_file_s_name_is_refused(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    for start in ("sqlite:///", "sqlite://host/", "sqlite+pysqlite:///"):
        assert "write sqlite:///FILE.db" in told(store.connect, start + uri)
    assert not [*tmp_path.iterdir()]


def test_one_file_is_one_store_however_it_is_written(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for uri in ("sqlite:///mlflow.db", "sqlite+pysqlite:///mlflow.db", "sqlite:///link/mlflow.db"):
        assert store.connect(uri) == own
    assert not own.shared


def test_a_moved_store_is_refused_with_a_line_that_links_its_files(empty, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new % folder"
    old.mkdir()
    shutil.copyfile(empty, old / "mlflow.db")
    where = store.connect(addresses.address(old / "mlflow.db"))
    run = where.client.create_run(where.experiment_id)
    where.client.log_text(run.info.run_id, "here", "a.txt")
    old.rename(new)
    uri = addresses.address(new / "mlflow.db")
    before = (new / "mlflow.db").read_bytes()
    (line,) = {told(call, uri) for call in (store.connect, analysis.load)}
    assert f"was moved from {old}" in line
    assert (new / "mlflow.db").read_bytes() == before
    subprocess.run(["sh", "-c", line.partition("link its files:  ")[2]], check=True)
    here = store.connect(uri)
    assert store.download(uri, run, "a.txt", tmp_path).read_text() == "here"
    here.client.log_text(run.info.run_id, "too", "b.txt")
    assert (new / "mlartifacts" / run.info.run_id / "artifacts" / "b.txt").read_text() == "too"


# -- a store that is made -----------------------------------------------------------------------

MAKING = "import sys; from resnet import store; store.connect(sys.argv[1])"


def kill_while_it_is_made(folder, seconds):
    """SIGKILL so long after the first file appeared; whether it was in time."""
    uri = addresses.address(folder / "mlflow.db")
    process = subprocess.Popen(
        [sys.executable, "-c", MAKING, uri], cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)}
    )
    while process.poll() is None and not [*folder.glob("tmp*/*")]:
        time.sleep(0.002)
    time.sleep(seconds)
    in_time = process.poll() is None
    process.kill()
    process.wait()
    return in_time


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_a_process_killed_while_it_makes_a_store_leaves_nothing_to_repair(tmp_path, seconds):
    in_time = kill_while_it_is_made(tmp_path, seconds)
    assert in_time or seconds > 0.5  # a fast machine may have made it by then
    uri = addresses.address(tmp_path / "mlflow.db")
    with pytest.raises(UserError, match="nothing was run yet: "):
        analysis.load(uri)
    run = store.connect(uri).client.create_run(store.connect(uri).experiment_id)
    assert runs_in(tmp_path / "mlflow.db") == {run.info.run_id}


def half_made(path, revision=None):
    engine = utils.create_sqlalchemy_engine(uri := addresses.address(path))
    utils.InitialBase.metadata.create_all(engine)
    if revision:
        alembic.command.upgrade(utils._get_alembic_config(uri), revision)
    engine.dispose()


def execute(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as opened, opened:
        for statement in statements:
            opened.execute(statement)


FOREIGN = {
    "MLflow's first tables": half_made,
    "some migrations": lambda path: half_made(path, "+9"),
    "a newer MLflow's": lambda path: execute(path, "UPDATE alembic_version SET version_num = 'f'"),
    "another program's": lambda path: execute(path, "CREATE TABLE notes (text)"),
    "no database": lambda path: path.write_bytes(b"no database" * 100),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_that_is_not_this_mlflow_s_is_left_alone(empty, tmp_path, kind):
    """MLflow would fill it, or go on with the migrations, even where it is only to read."""
    path = tmp_path / "mlflow.db"
    if "newer" in kind:
        shutil.copyfile(empty, path)
    FOREIGN[kind](path)
    before, uri = path.read_bytes(), addresses.address(path)
    calls = (store.connect, lambda uri: store.connect(uri, create=False), analysis.load)
    for line in {told(call, uri) for call in calls}:
        assert "is not a complete database of MLflow" in line
        assert line.endswith(f"-m mlflow db upgrade {uri}")
    assert path.read_bytes() == before
    path.unlink()
    assert store.connect(uri).search() == []


def test_the_newest_run_is_the_last_made_though_the_clock_was_set_back(own, dataset, monkeypatch):
    clock = time.time
    with tracking.parent_run(own, "first", JOB, dataset) as first:
        pass
    monkeypatch.setattr(time, "time", lambda: clock() - 86_400)
    with tracking.parent_run(own, "second", JOB, dataset) as second:
        pass
    assert [run.info.run_id for run in own.search(role="ladder")] == [second, first]


# -- whose commit -------------------------------------------------------------------------------


def git(folder, *words):
    options = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", *options, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def committed(folder):
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("a")
    git(folder, "add", "a.txt")
    git(folder, "commit", "-q", "-m", str(folder))
    return git(folder, "rev-parse", "HEAD")


def version(folder, monkeypatch):
    monkeypatch.setitem(host.version.__globals__, "ROOT", folder.resolve())
    tags = host.version()
    return tags["git_commit"], tags["git_dirty"]


def test_a_checkout_s_own_commit_is_recorded(tmp_path, monkeypatch):
    """A worktree's too, but not that of a repository around a copy."""
    main, tree = tmp_path / "main", tmp_path / "tree"
    commit = committed(main)
    git(main, "worktree", "add", "-q", "--detach", str(tree))
    for folder in (main, tree):
        assert version(folder, monkeypatch) == (commit, "false")
    (main / "copy").mkdir()
    (main / "copy" / "b.txt").write_text("new")
    assert version(main, monkeypatch) == (commit, "true")
    for folder in (main / "copy", tmp_path):
        assert version(folder, monkeypatch) == ("unknown", "unknown")


def test_mlflow_adds_no_commit_of_its_own(own, dataset, monkeypatch):
    """It takes that of whatever checkout the script lies in."""
    unknown = environment.environment(STUDY) | {"git_commit": "unknown"}
    unknown.pop("mlflow.source.git.commit", None)
    monkeypatch.setattr(runs, "environment", lambda study: unknown)
    with tracking.parent_run(own, "x", JOB, dataset) as run_id:
        tags = own.client.get_run(run_id).data.tags
    assert "mlflow.source.name" in tags
    assert not [key for key in tags if key.startswith("mlflow.source.git")]


# -- unusual stores -----------------------------------------------------------------------------


def test_an_experiment_in_the_trash_is_told_with_the_way_back(own, tmp_path):
    run_id = own.client.create_run(own.experiment_id).info.run_id
    own.client.delete_experiment(own.experiment_id)
    for create in (True, False):
        line = told(store.connect, own.uri, create=create)
        assert "is in MLflow's trash" in line
    way = line.partition("bring it back with  ")[2]
    subprocess.run(["sh", "-c", way], check=True, capture_output=True)
    assert store.connect(own.uri, create=False) == own
    assert [run.info.run_id for run in own.search()] == [run_id]


def test_a_locked_database_is_told_as_locked(own, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "another process holds it locked" in told(store.connect, own.uri, create=False)
    assert store.connect(own.uri, create=False) == own


# -- what happens to a store in mid-training ----------------------------------------------------


def climb(where, dataset, at_epoch=lambda: None):
    """Trains the job; returns what was told."""
    heard = []

    def listener(event):
        heard.append(event)
        if isinstance(event, events.Epoch) and len(event.history) == 2:
            at_epoch()

    engines.run_jobs([JOB], dataset, where, listener, name="x")
    assert not [event for event in heard if isinstance(event, events.Failed)]
    return heard


def epochs_of(where):
    (run,) = where.search(role="rung", status="FINISHED")
    history = where.client.get_metric_history(run.info.run_id, "loss")
    return run.info.run_id, sorted(metric.step for metric in history)


def assert_trained_on(heard):
    (resumed,) = [event for event in heard if isinstance(event, events.Resumed)]
    assert len(resumed.history) >= 2


def test_a_killed_ladder_s_parent_is_ended_by_the_next(own, dataset):
    code = (
        "import os, signal, sys\n"
        "from conftest import bars, experiment\n"
        "from resnet import store, study, tracking\n"
        "job = study.Job(experiment('01_template'), 0)\n"
        "with tracking.parent_run(store.connect(sys.argv[1]), 'x', job, bars()):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, own.uri],
        cwd=ROOT / "tests",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == -signal.SIGKILL
    (killed,) = own.search(role="ladder", status="RUNNING")
    with tracking.parent_run(own, "y", JOB, dataset) as run_id:
        (going,) = own.search(role="ladder", status="RUNNING")
        assert going.info.run_id == run_id
    assert own.client.get_run(killed.info.run_id).info.status == "KILLED"


def test_a_description_written_in_the_ui_stays(own, dataset):
    def write_and_stop():
        (begun,) = own.search(role="rung")
        own.client.set_tag(begun.info.run_id, "mlflow.note.content", "compare with Tuesday")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb(own, dataset, write_and_stop)
    assert_trained_on(climb(own, dataset))
    (run,) = own.search(role="rung")
    assert run.data.tags["mlflow.note.content"] == "compare with Tuesday"


def test_what_kept_a_ladder_from_its_models_and_report_is_made_up_for(own, dataset, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "register", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engines.run_jobs([JOB], dataset, own, lambda event: None, name="x")
    assert not own.client.search_registered_models()
    (begun,) = own.search(role="ladder")
    parent = begun.info.run_id
    assert engines.run_jobs([JOB], dataset, own, lambda event: None, name="x") == (0, {"": parent})
    assert own.client.search_registered_models()
    own.client.set_tag(parent, "ladder", "its report")
    assert engines.run_jobs([JOB], dataset, own, lambda event: None, name="x") == (0, {"": ""})
    assert len(own.search(role="ladder")) == 1


def test_a_diverged_run_says_so(own, dataset):
    job = Job(change(JOB.experiment, {"data": {"pixel_scale": 1e-38}}, "test"), 0)
    console = Console(file=io.StringIO(), width=200)
    with Display(console, [job]) as display:
        engines.run_jobs([job], dataset, own, display, name="x")
    told = console.file.getvalue()
    assert told.count("diverged: the loss is not finite") == 1
    (run,) = own.search(role="rung")
    assert run.data.tags["diverged"] == "the loss of epoch 1"
    (note,) = [n for n in analysis.load(own.uri, modified="").notes if "diverged" in n]
    assert "its loss is not finite any more" in note


def test_another_machine_may_make_the_experiment_first(tmp_path, monkeypatch):
    make = MlflowClient.create_experiment

    def beaten(client, *arguments):
        make(client, *arguments)  # the other machine's
        return make(client, *arguments)

    monkeypatch.setattr(MlflowClient, "create_experiment", beaten)
    assert not store.connect(f"sqlite:///{tmp_path}/mlflow.db").search()
