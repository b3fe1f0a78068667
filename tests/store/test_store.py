"""Which file a store is, whose commit a run has, and what an unusual store is told as."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import services
from conftest import ROOT, SMALL, experiment
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ladders import FAST
from mlflow.entities import RunStatus

from report import analysis
from resnet import UserError, events, ladder, store, tracking
from resnet.host import addresses, shell
from resnet.store import database
from resnet.study import Job, Study
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

NAMES = st.text(
    st.sampled_from("ab 20%3F?#&=+;:@~'\"\\\n\rü") | st.characters(exclude_characters="/\0"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=25, deadline=None)
@given(name=NAMES, quoted=st.booleans())
@example(name="a%20b", quoted=True)
@example(name="a%20b", quoted=False)
@example(name="a?b", quoted=True)
@example(name="a?b", quoted=False)
@example(name="100%", quoted=False)
@example(name="a#b\n", quoted=True)
@example(name="\udcff", quoted=True)  # of a file system that is not UTF-8
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
            assert not quoted or "\udcff" in name or len(os.fsencode(name)) > 255
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


@pytest.mark.parametrize("blank", ["\r", "\n", "\r\n", " "])
def test_blanks_around_an_address_are_none_of_it(empty, tmp_path, blank):
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    opened = store.connect(f" sqlite:///{tmp_path}/mlflow.db{blank}")
    assert opened.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


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


@pytest.mark.parametrize("name", ["my%20clone", "what?"])
def test_a_clone_in_a_folder_of_such_a_name_keeps_its_runs(tmp_path, empty, name):
    clone, other = tmp_path / name, tmp_path / name.replace("%20", " ").rstrip("?")
    other.mkdir()
    services.copy(clone)
    for folder in (clone, other):
        shutil.copyfile(empty, folder / "mlflow.db")
    before = (other / "mlflow.db").read_bytes()
    code = (
        "from resnet import store\n"
        "here = store.connect()\n"
        "print(here.client.create_run(here.experiment_id).info.run_id)"
    )
    environment = {key: os.environ[key] for key in os.environ if key != "MLFLOW_TRACKING_URI"}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert runs_in(clone / "mlflow.db") == {out.stdout.strip()}
    assert (other / "mlflow.db").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {clone.name, other.name}


def test_a_moved_store_s_neighbours_keep_their_artifacts(empty, tmp_path):
    """An address's ``%20`` is no wildcard of SQL."""
    old = tmp_path / "a b"
    old.mkdir()
    shutil.copyfile(empty, old / "mlflow.db")
    first = store.connect(addresses.address(old / "mlflow.db"))
    other = f"{(tmp_path / 'a b').as_uri().replace('%20', '%XX20')}/mlartifacts/x"
    with contextlib.closing(sqlite3.connect(old / "mlflow.db")) as database, database:
        run_id = first.client.create_run(first.experiment_id).info.run_id
        database.execute("UPDATE runs SET artifact_uri = ?", (other,))
    old.rename(tmp_path / "new")
    moved = store.connect(addresses.address(tmp_path / "new" / "mlflow.db"))
    assert moved.client.get_run(run_id).info.artifact_uri == other


# -- whose commit -------------------------------------------------------------------------------


def git(folder, *words):
    options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
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
    monkeypatch.setattr(environment, "ROOT", folder.resolve())
    tags = environment._version()
    assert tags.get("mlflow.source.git.commit", "unknown") == tags["git_commit"]
    return tags["git_commit"], tags["git_dirty"]


@pytest.fixture
def no_git(monkeypatch):
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)


@pytest.mark.usefixtures("no_git")
def test_a_checkout_s_own_commit_is_recorded(tmp_path, monkeypatch):
    """Also where it is a worktree or a submodule, or its name ends in a blank."""
    main, tree, outer = tmp_path / "main ", tmp_path / "tree", tmp_path / "outer"
    commit = committed(main)
    git(main, "worktree", "add", "-q", "--detach", str(tree))
    committed(outer)
    git(outer, "submodule", "add", "-q", str(main), "sub")
    for folder in (main, tree, outer / "sub"):
        assert version(folder, monkeypatch) == (commit, "false")
    (main / "b.txt").write_text("new")
    assert version(main, monkeypatch) == (commit, "true")
    (main / ".git" / "index").write_bytes(b"damaged")
    assert version(main, monkeypatch) == (commit, "unknown")


@pytest.mark.usefixtures("no_git")
def test_another_repository_s_commit_is_none_of_a_copy(tmp_path, monkeypatch):
    other, own_ = tmp_path / "other", tmp_path / "own"
    committed(other)
    (other / "copy").mkdir()
    assert version(other / "copy", monkeypatch) == ("unknown", "unknown")
    commit = committed(own_)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    assert version(own_, monkeypatch) == (commit, "false")
    assert version(other / "copy", monkeypatch) == ("unknown", "unknown")
    monkeypatch.delenv("GIT_DIR")
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    assert version(tmp_path / "empty", monkeypatch) == ("unknown", "unknown")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert version(own_, monkeypatch) == ("unknown", "unknown")


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
        line = told(store.check, own.uri, STUDY)
    assert "another process holds it locked" in line
    assert "not a database" not in line
    assert store.connect(own.uri, create=False) == own


@pytest.mark.parametrize("without", ["", "DROP TABLE metrics"])
def test_a_newer_mlflow_s_database_is_left_alone(own, tmp_path, without):
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        database.execute(without)
    before = (tmp_path / "mlflow.db").read_bytes()
    for create in (True, False):
        line = told(store.connect, own.uri, create=create)
        assert "a newer MLflow than" in line
        assert "upgrade" not in line
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_an_older_mlflow_s_database_is_told_how_to_renew_it(empty, tmp_path):
    path = Path(shutil.copyfile(empty, tmp_path / "mlflow.db"))
    with contextlib.closing(sqlite3.connect(path)) as opened, opened:
        (newest,) = opened.execute("SELECT version_num FROM alembic_version").fetchone()
        (script,) = database._SCHEMAS.glob(f"{newest}_*.py")
        before = script.read_text().partition('down_revision = "')[2].partition('"')[0]
        opened.execute("UPDATE alembic_version SET version_num = ?", (before,))
    uri = addresses.address(path)
    line = told(store.connect, uri)
    assert f"-m mlflow db upgrade {uri}" in line
    assert "newer" not in line


# -- what happens to a store in mid-training ----------------------------------------------------


def climb(where, dataset, at_epoch=lambda: None):
    """Trains the job; returns what was told."""
    heard = []

    def listener(event):
        heard.append(event)
        if isinstance(event, events.Epoch) and len(event.history) == 2:
            at_epoch()

    ladder.run_jobs([JOB], dataset, where, listener, name="x")
    assert not [event for event in heard if isinstance(event, events.Failed)]
    return heard


def epochs_of(where):
    (run,) = where.search(role="rung", status="FINISHED")
    history = where.client.get_metric_history(run.info.run_id, "loss")
    return run.info.run_id, sorted(metric.step for metric in history)


def assert_trained_on(heard):
    (resumed,) = [event for event in heard if isinstance(event, events.Resumed)]
    assert len(resumed.history) >= 2


def test_an_experiment_deleted_in_mid_training_loses_nothing(own, dataset):
    with pytest.raises(store.FAILURES, match="is in MLflow's trash") as error:
        climb(own, dataset, lambda: own.client.delete_experiment(own.experiment_id))
    assert shell.mask(error.value)[:300].endswith(f"restore -x {own.experiment_id}")
    own.client.restore_experiment(own.experiment_id)
    (begun,) = own.search(role="rung")
    assert_trained_on(climb(own, dataset))
    assert epochs_of(own) == (begun.info.run_id, [1, 2, 3])


def test_an_experiment_made_anew_in_mid_training_takes_the_training_over(own, dataset):
    def made_anew():
        own.client.rename_experiment(own.experiment_id, "old")
        own.client.delete_experiment(own.experiment_id)
        store.connect(own.uri)

    with pytest.raises(store.FAILURES, match="the experiment old is in MLflow's trash"):
        climb(own, dataset, made_anew)
    new = store.connect(own.uri)
    assert new.experiment_id != own.experiment_id
    assert_trained_on(climb(new, dataset))
    assert epochs_of(new)[1] == [1, 2, 3]


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


@pytest.mark.slow
def test_ladders_of_two_folders_share_one_store(command, image_folder):
    """Each run is trained by one of them, whatever the store's address is to each."""
    first, second = (services.copy(command.folder / name) for name in ("one", "two"))
    arguments = (f"--data={image_folder}", *FAST)
    runners = [
        command.start("--ladder=1,2", *arguments, script=first),
        command.start(
            "--ladder=2,1", *arguments, "--tracking-uri=sqlite+pysqlite:///mlflow.db\r",
            script=second,
        ),
    ]  # fmt: skip
    outputs = [runner.communicate(timeout=300) for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    shared = store.connect(command.uri)
    assert sorted(run.data.tags["rung"][:2] for run in shared.search(role="rung")) == ["01", "02"]
    assert {run.info.status for run in shared.search()} == {RunStatus.to_string(RunStatus.FINISHED)}
    assert {path.name for path in command.folder.glob("*/checkpoints")} == set()


def test_the_report_tells_unusual_stores_alike(own, tmp_path):
    with pytest.raises(UserError, match=f"has no runs; start with .* --tracking-uri {own.uri} "):
        analysis.load(own.uri)
    own.client.create_run(own.experiment_id)
    own.client.delete_experiment(own.experiment_id)
    assert "experiments restore -x" in told(analysis.load, f"{own.uri}\r")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert "a newer MLflow" in told(analysis.load, own.uri)
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}
