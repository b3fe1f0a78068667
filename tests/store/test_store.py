"""Tests the addresses and errors of stores, and the runs that commands write."""

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
def own(command):
    return store.connect(command.uri)


def runs_in(database):
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return {run_id for (run_id,) in opened.execute("SELECT run_uuid FROM runs")}


def told(call, *arguments, **options):
    """Returns the message of the UserError that the call raises."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert str(error.value).isprintable()
    return str(error.value)


# -- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("name", ["a%20b", "a?b", "100%", "a#b\n", "\udcff"])
def test_mlflow_writes_only_beside_the_file_that_the_address_names(empty, name, quoted):
    """The project quotes special characters in addresses. Users may leave them unquoted."""
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
            assert not quoted or "\udcff" in name  # a name that is not UTF-8
            return
        file_of_uri = addresses.file_of(opened.uri)
        assert file_of_uri == file or not quoted
        assert file_of_uri.parent == opened.checkpoints.parent
        run = opened.client.create_run(opened.experiment_id)
        opened.client.log_text(run.info.run_id, "here", "a.txt")
        path = opened.client.download_artifacts(run.info.run_id, "a.txt", made)
        assert Path(path).read_text() == "here"
        assert runs_in(file_of_uri) == {run.info.run_id}
        new = {*top.rglob("*")} - before - {top / "a.txt"}
        assert all(path.is_relative_to(file_of_uri.parent) for path in new)


@pytest.mark.parametrize(
    "uri", ["x.db?timeout=60", "x.db?", ":memory:", "", "%00", "file:x.db?uri=true&mode=rwc"]
)
def test_an_sqlite_address_that_does_not_name_a_file_is_refused(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    for start in ("sqlite:///", "sqlite://host/", "sqlite+pysqlite:///"):
        assert "write sqlite:///FILE.db" in told(store.connect, start + uri)
    assert not [*tmp_path.iterdir()]


def test_all_addresses_of_one_file_open_the_same_store(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for uri in ("sqlite:///mlflow.db", "sqlite+pysqlite:///mlflow.db", "sqlite:///link/mlflow.db"):
        assert store.connect(uri) == own
    assert not own.shared


def test_the_error_for_a_moved_store_shows_a_command_that_links_the_files(empty, tmp_path):
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


# -- new and foreign databases ------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_a_store_needs_no_repair_if_the_process_that_makes_it_is_killed(tmp_path, seconds):
    uri = addresses.address(tmp_path / "mlflow.db")
    code = "import sys; from resnet import store; store.connect(sys.argv[1])"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", code, uri], cwd=ROOT, env=environment)
    while process.poll() is None and not [*tmp_path.glob("tmp*/*")]:
        time.sleep(0.002)
    time.sleep(seconds)
    assert process.poll() is None or seconds > 0.5  # a fast machine may have made the store by then
    process.kill()
    process.wait()
    with pytest.raises(UserError, match="nothing has been run yet: "):
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
    "a newer MLflow": lambda path: execute(path, "UPDATE alembic_version SET version_num = 'f'"),
    "another program": lambda path: execute(path, "CREATE TABLE notes (text)"),
    "no database": lambda path: path.write_bytes(b"no database" * 100),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_of_another_program_or_mlflow_version_is_not_changed(empty, tmp_path, kind):
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


def test_a_later_run_is_found_first_even_if_the_clock_was_set_back(own, dataset, monkeypatch):
    clock = time.time
    with tracking.parent_run(own, "first", JOB, dataset) as first:
        pass
    monkeypatch.setattr(time, "time", lambda: clock() - 86_400)
    with tracking.parent_run(own, "second", JOB, dataset) as second:
        pass
    assert [run.info.run_id for run in own.search(role="ladder")] == [second, first]


# -- the recorded commit ------------------------------------------------------------------------


def test_a_checkout_or_worktree_has_a_recorded_commit_but_a_copy_has_none(tmp_path, monkeypatch):
    main, tree = tmp_path / "main", tmp_path / "tree"
    (main / "copy").mkdir(parents=True)

    def git(*words):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=main, check=True, capture_output=True, text=True).stdout

    def version(folder):
        monkeypatch.setitem(host.version.__globals__, "ROOT", folder.resolve())
        tags = host.version()
        return tags["git_commit"], tags["git_dirty"]

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    git("worktree", "add", "-q", "--detach", str(tree))
    for folder in (main, tree):
        assert version(folder) == (commit, "false")
    (main / "copy" / "b.txt").write_text("new")
    assert version(main) == (commit, "true")
    for folder in (main / "copy", tmp_path):
        assert version(folder) == ("unknown", "unknown")


def test_mlflow_does_not_record_the_commit_of_another_repository(own, dataset, monkeypatch):
    unknown = environment.environment(STUDY) | {"git_commit": "unknown"}
    unknown.pop("mlflow.source.git.commit", None)
    monkeypatch.setattr(runs, "environment", lambda study: unknown)
    with tracking.parent_run(own, "x", JOB, dataset) as run_id:
        tags = own.client.get_run(run_id).data.tags
    assert "mlflow.source.name" in tags
    assert not [key for key in tags if key.startswith("mlflow.source.git")]


# -- unusable experiments -----------------------------------------------------------------------


def test_the_error_for_an_experiment_in_the_trash_shows_a_command_that_restores_it(own):
    run_id = own.client.create_run(own.experiment_id).info.run_id
    own.client.delete_experiment(own.experiment_id)
    for create in (True, False):
        line = told(store.connect, own.uri, create=create)
        assert "is in MLflow's trash" in line
    command = line.partition("Restore it with:  ")[2]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert store.connect(own.uri, create=False) == own
    assert [run.info.run_id for run in own.search()] == [run_id]


def test_the_error_for_a_locked_database_says_that_it_is_locked(own, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "process has locked the database" in told(store.connect, own.uri, create=False)
    assert store.connect(own.uri, create=False) == own


# -- the runs that commands write ---------------------------------------------------------------


def test_the_next_command_ends_the_run_of_a_killed_command(own, dataset):
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


def test_a_resumed_run_keeps_the_description_that_a_user_wrote(own, dataset):
    heard = []

    def describe_and_stop(event):
        if isinstance(event, events.Epoch) and len(event.history) == 2:
            (begun,) = own.search(role="rung")
            own.client.set_tag(begun.info.run_id, "mlflow.note.content", "compare with Tuesday")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engines.run_jobs([JOB], dataset, own, describe_and_stop, name="x")
    assert engines.run_jobs([JOB], dataset, own, heard.append, name="x")[0] == 0
    (resumed,) = [event for event in heard if isinstance(event, events.Resumed)]
    assert len(resumed.history) >= 2
    (run,) = own.search(role="rung")
    assert run.data.tags["mlflow.note.content"] == "compare with Tuesday"


def test_the_next_command_adds_missing_models_and_reports(own, dataset, monkeypatch):
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


def test_a_diverged_run_is_reported_by_the_display_a_tag_and_a_note(own, dataset):
    job = Job(change(JOB.experiment, {"data": {"pixel_scale": 1e-38}}, "test"), 0)
    console = Console(file=io.StringIO(), width=200)
    with Display(console, [job]) as display:
        engines.run_jobs([job], dataset, own, display, name="x")
    told = console.file.getvalue()
    assert told.count("diverged: the loss is not finite") == 1
    (run,) = own.search(role="rung")
    assert run.data.tags["diverged"] == "the loss of epoch 1 is not finite"
    (note,) = [n for n in analysis.load(own.uri, modified="").notes if "diverged" in n]
    assert "its loss is not finite any more" in note


def test_a_store_opens_even_if_another_machine_makes_its_experiment_first(tmp_path, monkeypatch):
    make = MlflowClient.create_experiment

    def beaten(client, *arguments):
        make(client, *arguments)  # stands in for the other machine's call
        return make(client, *arguments)

    monkeypatch.setattr(MlflowClient, "create_experiment", beaten)
    assert not store.connect(f"sqlite:///{tmp_path}/mlflow.db").search()
