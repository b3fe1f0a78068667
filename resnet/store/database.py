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
from alembic.util import CommandError
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from resnet import ROOT, UserError
from resnet.host.addresses import file_of
from resnet.host.shell import command, mask, typed
from resnet.study import Study, rung_number

FAILURES = (MlflowException, SQLAlchemyError, CommandError, OSError)
"""What a store raises."""
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
        create: whether it may, if the tables are not those of a newer MLflow.

    Raises:
        UserError: there is no such file, it is empty, locked, or not a database of this MLflow's.
    """
    path = file_of(uri)
    if not path:
        return
    there = os.path.exists(path)  # noqa: PTH110 - where it is forbidden, too
    if not there or (path.is_file() and path.stat().st_size == 0):
        if create:
            return
        raise nothing_run(study, f"there is no {path}", uri)
    try:
        readable = f"{path.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(readable, uri=True)) as database:
            version = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        if create:
            return  # MLflow says what it is, if it is not at this moment made
        if "database is locked" in str(error):
            raise UserError(f"{path}: {reason(uri, error)}") from None
        raise UserError(
            f"{path}: is not a database of MLflow's ({error}); name another with --tracking-uri"
        ) from None
    if version and not _known(version[0]):
        raise UserError(f"{path}: {_other_tables(uri, version[0])}")


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


def follow(uri: str, study: Study) -> None:
    """Tells the database of a local store that was moved or renamed where its artifacts are.

    MLflow keeps absolute addresses. Nothing is done if they hold, as in a copy of the file alone,
    or are none of this project's.

    Args:
        uri: MLflow tracking URI.
        study: of whose experiment.

    Raises:
        OSError: they do not hold, and the file cannot be written.
    """
    database = file_of(uri)
    if not (database and database.is_file() and database.stat().st_size):
        return
    new = (database.parent / "mlartifacts").as_uri()
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            rows = connection.execute(
                "SELECT artifact_location FROM experiments WHERE name = ?", (study.name,)
            ).fetchall()
            for (old,) in rows:
                if not (old or "").startswith("file:") or Path(old).name != "mlartifacts":
                    continue
                there, here = (os.path.isdir(local_file_uri_to_path(url)) for url in (old, new))  # noqa: PTH112 - where it is forbidden, too
                if old == new or (there and not here):
                    continue
                # the columns in which MLflow 3 keeps addresses of files
                for table, column in (
                    ("experiments", "artifact_location"),
                    ("runs", "artifact_uri"),
                    ("logged_models", "artifact_location"),
                    ("model_versions", "storage_location"),
                ):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - fixed names
                        f"WHERE substr({column} || '/', 1, ?) = ?",
                        (new, len(old) + 1, len(old) + 1, f"{old}/"),
                    )
    except sqlite3.Error as error:
        raise OSError(str(error)) from None
