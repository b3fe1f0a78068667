"""The database behind a store: whether it is there and this MLflow's, and what its errors mean."""

import contextlib
import os
import re
import shlex
import socket
import sqlite3
from pathlib import Path

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from resnet import ROOT, UserError
from resnet.host.addresses import address, file_of
from resnet.host.shell import command, mask, typed
from resnet.study import Study, rung_number

FAILURES = (MlflowException, SQLAlchemyError, CommandError, OSError)
"""What a store raises."""
_NOT_WHOLE = "its tables are not whole, as a process leaves them that is killed while it makes them"
_SCHEMAS = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"


def nothing_run(study: Study, why: str, uri: str | None = None) -> UserError:
    """Makes the one answer wherever there is nothing to look at."""
    quick = (study.folder / "profiles" / "quick.yaml").is_file()
    rungs = ",".join(["all", *(name for name in study.files if rung_number(name) is None)])
    words = ["run", rungs, *["--profile", "quick"] * quick]
    aside = f"  (minutes), or without --profile for {study.dataset_title}" * quick
    start = study.command(*words, uri=uri)
    return UserError(f"nothing was run yet: {why}; start with  {start}{aside}")


def deleted(uri: str, experiment: Experiment) -> str:
    """Returns the line for an experiment in MLflow's trash; empty for one that is not there."""
    if experiment.lifecycle_stage == "active":
        return ""
    back = command("-m", "mlflow", "experiments", "restore", "-x", experiment.experiment_id)
    return (
        f"the experiment {experiment.name} is in MLflow's trash; bring it back with  "
        f"MLFLOW_TRACKING_URI={mask(shlex.quote(uri))} {back}"
    )


def reason(uri: str, error: Exception) -> str:
    """Says what a store's error says, in plain words where the way out is known."""
    text = mask(error)
    if "database is locked" in text:
        return "another process holds it locked; end that one, or wait for it, and try again"
    if "already exists" in text:  # what MLflow says of tables that it did not finish making
        return f"{_NOT_WHOLE}; empty that database, or name another with --tracking-uri"
    # the latter where a newer schema has fewer tables
    version = re.search(r"(?:schema \(found version |revision identified by ')(\w+)", text)
    return _other_tables(uri, version[1]) if version else text[:300]


def _known(version: str) -> bool:
    return any(_SCHEMAS.glob(f"{version}_*.py"))


def _other_tables(uri: str, version: str) -> str:
    if _known(version):
        upgrade = command("-m", "mlflow", "db", "upgrade", uri)
        return f"an older MLflow made its tables; keep a copy, then renew them with  {upgrade}"
    return (
        f"a newer MLflow than {mlflow.__version__} made its tables; install that one, or name "
        "another store with --tracking-uri"
    )


def check(uri: str, study: Study, *, create: bool = False) -> None:
    """Refuses an SQLite file that MLflow would create or fill with tables when it opens it.

    Args:
        uri: MLflow tracking URI.
        study: whose runs are looked for.
        create: whether the file may be missing or empty.

    Raises:
        UserError: there is no such file, it is empty, locked, or not a database of this MLflow's.
    """
    path = file_of(uri)
    if not path:
        return
    if not _has_content(path):
        if create:
            return
        raise nothing_run(study, f"there is no {path}", uri)
    try:
        readable = f"{path.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(readable, uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            of = "SELECT version_num FROM alembic_version" if "alembic_version" in tables else ""
            (version,) = (of and database.execute(of).fetchone()) or ("",)
            runs = "runs" in tables and database.execute("SELECT 1 FROM runs").fetchone()
    except sqlite3.Error as error:
        if "database is locked" not in str(error):
            tables, version, runs = set(), "", str(error)
        elif create:
            return  # MLflow waits for it
        else:
            raise UserError(f"{path}: {reason(uri, error)}") from None
    if version == ScriptDirectory(str(_SCHEMAS.parent)).get_current_head():
        return
    if version and not _known(version):
        raise UserError(f"{path}: {_other_tables(uri, version)}")
    if not (version or "experiments" in tables):
        why = f" ({runs})" if runs else ""
        raise UserError(
            f"{path}: is not a database of MLflow's{why}; name another with --tracking-uri"
        )
    # MLflow would go on with the migrations, and so write, even where it is only asked to read
    if runs:
        raise UserError(f"{path}: {_other_tables(uri, version)}")
    raise UserError(
        f"{path}: {_NOT_WHOLE}, or an older MLflow made them; it holds no run: delete the file "
        "and try again"
    )


def _has_content(path: Path) -> bool:
    there = os.path.exists(path)  # noqa: PTH110 - where it is forbidden, too
    return there and not (path.is_file() and path.stat().st_size == 0)


def make(path: Path) -> None:
    """Makes MLflow's tables in an SQLite file that is missing or empty.

    MLflow commits each of some fifty migrations, and does not go on with them if it is killed in
    between (MLflow issue 23721). So they are made aside, and the file is renamed when it is whole.
    The caller holds the lock of the file.
    """
    if _has_content(path):
        return
    aside = path.with_name(f"{path.name}.new")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)  # by a process that was killed
    MlflowClient(address(aside)).search_experiments(max_results=1)
    aside.replace(path)


def try_database(uri: str) -> None:
    """Connects to a database's server once, if it is one, since MLflow would try for long.

    Raises:
        UserError: its driver is not installed, or the address is none.
        OSError, SQLAlchemyError: it cannot be reached.
    """
    if uri.partition(":")[0].partition("+")[0] not in {*DATABASE_ENGINES} - {"sqlite"}:
        return
    try:
        engine = sqlalchemy.create_engine(uri)
        if engine.url.host:
            port = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}[engine.dialect.name]
            socket.create_connection((engine.url.host, engine.url.port or port), 5).close()
        engine.connect().close()
        engine.dispose()
    except (ImportError, NoSuchModuleError) as error:
        raise UserError(
            f"{mask(uri)}: the database's driver is not installed ({error}); for PostgreSQL:   "
            + command("-m", "pip", "install", "-e", f"{typed(ROOT)}[postgresql]")
        ) from None
    except ValueError as error:  # a port that is no number
        raise UserError(f"{mask(uri)}: is no database's address: {mask(error)}") from None


def moved(uri: str, experiment: Experiment) -> str:
    """Says that new files of a local store would go where it was before it was moved; or "".

    MLflow keeps absolute addresses. What was moved can be read all the same, see :func:`download`.
    """
    database, old = file_of(uri), experiment.artifact_location or ""
    if not database or not old.startswith("file:") or Path(old).name != "mlartifacts":
        return ""
    there, here = Path(local_file_uri_to_path(old)), database.parent / "mlartifacts"
    if there == here or there.is_dir() or (there.parent.is_dir() and not here.is_dir()):
        return ""
    folders, link = ["mkdir", "-p", here, there.parent], ["ln", "-s", here, there]
    lead = " && ".join(shlex.join(map(str, words)) for words in (folders, link))
    return (
        f"the store was moved: its files belong in {there}. Move it back, or make that address "
        f"lead here:  {lead}"
    )


def download(uri: str, run: Run, name: str, folder: str | Path) -> Path:
    """Fetches one of a run's artifacts, also of a local store that was moved.

    Args:
        uri: MLflow tracking URI.
        run: MLflow's.
        name: of the artifact.
        folder: to put it into.

    Raises:
        MlflowException, OSError: it is not there.
    """
    database, address_ = file_of(uri), run.info.artifact_uri
    *_, own = address_.rpartition("/mlartifacts/")
    if database and own != address_ and not Path(local_file_uri_to_path(address_)).is_dir():
        address_ = f"{(database.parent / 'mlartifacts').as_uri()}/{own}"
    # by its address: of a run's id MLflow would first ask whether it is a model's
    where = {"artifact_uri": f"{address_}/{name}", "dst_path": str(folder)}
    return Path(mlflow.artifacts.download_artifacts(**where, tracking_uri=uri))
