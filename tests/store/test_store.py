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
from dataclasses import replace
from pathlib import Path

import alembic.command
import pytest
import services
from conftest import ROOT, SMALL, experiment
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ladders import FAST
from mlflow.entities import RunStatus
from rich.console import Console

from report import analysis
from resnet import UserError, events, host, ladder, store, tracking
from resnet.host import addresses, shell
from resnet.store import database
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


@pytest.mark.parametrize("name", ["new % folder", "new"])
def test_a_moved_store_is_read_and_not_changed(empty, tmp_path, name):
    """What only looked at it told its database another place: a training into it lost its model."""
    old, new = tmp_path / "old", tmp_path / name
    old.mkdir()
    shutil.copyfile(empty, old / "mlflow.db")
    where = store.connect(addresses.address(old / "mlflow.db"))
    run = where.client.create_run(where.experiment_id)
    where.client.log_text(run.info.run_id, "here", "a.txt")
    old.rename(new)
    uri = addresses.address(new / "mlflow.db")
    before = (new / "mlflow.db").read_bytes()
    assert store.download(uri, run, "a.txt", tmp_path).read_text() == "here"
    with pytest.raises(UserError, match="has no runs"):
        analysis.load(uri)
    assert store.connect(uri, create=False).uri == uri
    line = told(store.connect, uri)
    assert f"the store was moved: its files belong in {old / 'mlartifacts'}" in line
    assert (new / "mlflow.db").read_bytes() == before
    subprocess.run(["sh", "-c", line.partition("lead here:  ")[2]], check=True)
    here = store.connect(uri)
    here.client.log_text(run.info.run_id, "too", "b.txt")
    assert (new / "mlartifacts" / run.info.run_id / "artifacts" / "b.txt").read_text() == "too"


def test_a_copy_of_a_store_s_file_alone_is_used_as_it_is(own, tmp_path):
    """Its files are where they were."""
    run = own.client.create_run(own.experiment_id)
    own.client.log_text(run.info.run_id, "here", "a.txt")
    alone = tmp_path / "copy"
    alone.mkdir()
    shutil.copy(tmp_path / "mlflow.db", alone)
    copy = store.connect(addresses.address(alone / "mlflow.db"))
    assert store.download(copy.uri, run, "a.txt", tmp_path / "copy").read_text() == "here"
    assert own.client.get_run(run.info.run_id).info.artifact_uri.startswith(tmp_path.as_uri())


def test_a_store_that_cannot_be_written_is_read(own, tmp_path):
    own.client.create_run(own.experiment_id)
    code = "import sys; from report import analysis; analysis.load(sys.argv[1])"
    words = [sys.executable, "-c", code, own.uri]
    for path in (tmp_path, tmp_path / "mlflow.db"):
        path.chmod(0o555)
    if os.getuid() == 0:  # to whom nothing is forbidden but what is mounted so
        mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
        if subprocess.run(["unshare", "-m", "sh", "-c", mount]).returncode:
            pytest.skip("nothing can be mounted here")
        words = ["unshare", "-m", "sh", "-c", f'cd {ROOT} && {mount} && exec "$@"', "sh", *words]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    tmp_path.chmod(0o755)
    assert "has no runs" in process.stderr.splitlines()[-1]


# -- a store that is made -----------------------------------------------------------------------

MAKING = """
import sys
from mlflow.tracking import MlflowClient
from resnet import store
uri, *own = sys.argv[1:]
store.connect(uri) if own else MlflowClient(uri).search_experiments()
"""


def kill_while_it_is_made(folder, seconds, *own):
    """SIGKILL so long after the first file appeared; whether it was in time."""
    uri = addresses.address(folder / "mlflow.db")
    process = subprocess.Popen([sys.executable, "-c", MAKING, uri, *own], cwd=ROOT)
    while process.poll() is None and not [*folder.glob("mlflow.db*[!k]")]:
        time.sleep(0.002)
    time.sleep(seconds)
    in_time = process.poll() is None
    process.kill()
    process.wait()
    return in_time


@pytest.mark.parametrize("seconds", [0.05, 0.4, 1.0])
def test_a_process_killed_while_it_makes_a_store_leaves_nothing_to_repair(tmp_path, seconds):
    in_time = kill_while_it_is_made(tmp_path, seconds, "own")
    assert in_time or seconds > 0.5  # a fast machine may have made it by then
    uri = addresses.address(tmp_path / "mlflow.db")
    with pytest.raises(UserError, match="nothing was run yet: "):
        analysis.load(uri)
    run = store.connect(uri).client.create_run(store.connect(uri).experiment_id)
    assert runs_in(tmp_path / "mlflow.db") == {run.info.run_id}
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.parametrize("made", ["initial tables", "some migrations"])
def test_a_store_that_another_program_left_half_made_is_a_line(tmp_path, made):
    """It ended in "table ... already exists", with raw SQL and no way out."""
    from mlflow.store.db import utils

    uri, path = addresses.address(tmp_path / "mlflow.db"), tmp_path / "mlflow.db"
    engine = utils.create_sqlalchemy_engine(uri)
    utils.InitialBase.metadata.create_all(engine)
    if made == "some migrations":
        config = utils._get_alembic_config(uri)
        alembic.command.upgrade(config, "+9")
    engine.dispose()
    before = path.read_bytes()
    for create in (True, False):
        line = told(store.connect, uri, create=create)
        assert "its tables are not whole" in line and "delete the file and try again" in line
    assert "its tables are not whole" in told(analysis.load, uri)
    assert path.read_bytes() == before
    path.unlink()
    assert store.connect(uri).search() == []


def test_another_program_s_database_is_left_alone(tmp_path):
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    for create in (True, False):
        line = told(store.connect, addresses.address(path), create=create)
        assert "is not a database of MLflow's" in line
    path.write_bytes(b"no database" * 100)
    assert "file is not a database" in told(store.connect, addresses.address(path))
    assert before != path.read_bytes()


def test_of_a_server_s_half_made_tables_there_is_a_line():
    error = Exception('(psycopg2.errors.DuplicateTable) relation "x" already exists [SQL: CREATE')
    line = database.reason("postgresql://host/db", error)
    assert "empty that database" in line and "SQL" not in line


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
    monkeypatch.setattr(
        host.version.__globals__["sys"].modules["resnet.host.version"], "ROOT", folder.resolve()
    )
    tags = host.version()
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
        opened.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('a', 0)")
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
            ladder.run_jobs([JOB], dataset, own, lambda event: None, name="x")
    assert not own.client.search_registered_models()
    (begun,) = own.search(role="ladder")
    parent = begun.info.run_id
    assert ladder.run_jobs([JOB], dataset, own, lambda event: None, name="x") == (0, {"": parent})
    assert own.client.search_registered_models()
    own.client.set_tag(parent, "ladder", "its report")
    assert ladder.run_jobs([JOB], dataset, own, lambda event: None, name="x") == (0, {"": ""})
    assert len(own.search(role="ladder")) == 1


def test_an_interrupted_sweep_leaves_no_parent_going(own, dataset):
    def stop(event):
        if isinstance(event, events.Epoch):
            raise KeyboardInterrupt

    jobs = [replace(JOB, modified=f"a.b={n}") for n in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        ladder.run_jobs(jobs, dataset, own, stop, name="x")
    parents = own.search(role="ladder")
    assert [run.info.status for run in parents] == ["KILLED"] * 2
    failures, again = ladder.run_jobs(jobs, dataset, own, lambda event: None, name="x")
    assert failures == 0
    for run in own.search(role="rung"):
        assert run.data.tags["mlflow.parentRunId"] == again[run.data.tags["modified"]]
    assert not {*again.values()} & {run.info.run_id for run in parents}


@pytest.mark.parametrize("tag", ["rung", "seed"])
def test_a_deleted_tag_ends_no_later_ladder(own, dataset, tag):
    """It ended in KeyError after the training, each time, without report and models."""
    climb(own, dataset)
    (run,) = own.search(role="rung")
    own.client.delete_tag(run.info.run_id, tag)
    other = Job(change(JOB.experiment, {"training": {"epochs": 1}}, "test"), 0)
    failures, _ = ladder.run_jobs([other], dataset, own, lambda event: None, name="x")
    assert failures == 0
    assert own.client.search_registered_models()


def test_a_run_begun_on_other_images_of_that_name_is_told(own, dataset):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb(own, dataset, stop)
    fewer = replace(dataset, x_train=dataset.x_train[:-1], y_train=dataset.y_train[:-1])
    heard = climb(own, fewer)
    (notice,) = [event.text for event in heard if isinstance(event, events.Notice)]
    assert notice == (
        f"was begun on other images called bars ({dataset.fingerprint[:12]}): it begins anew"
    )


def test_a_diverged_run_says_so(own, dataset):
    job = Job(change(JOB.experiment, {"data": {"pixel_scale": 1e-38}}, "test"), 0)
    console = Console(file=io.StringIO(), width=200)
    with Display(console, [job]) as display:
        ladder.run_jobs([job], dataset, own, display, name="x")
    told = console.file.getvalue()
    assert told.count("diverged: the loss is not finite") == 1
    assert "; diverged in epoch 1" in told
    (run,) = own.search(role="rung")
    assert run.data.tags["diverged"] == "the loss of epoch 1"
    (note,) = [n for n in analysis.load(own.uri, modified="").notes if "diverged" in n]
    assert "its loss is not finite any more" in note
