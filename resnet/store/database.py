"""The database behind a store: checked before MLflow opens it, and its errors in plain words."""

import contextlib
import os
import shlex
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.exc import SQLAlchemyError

from resnet import UserError
from resnet.host import disk
from resnet.host.addresses import address, file_of
from resnet.host.command_lines import command
from resnet.host.messages import mask
from resnet.study import Study, rung_number

FAILURES = (MlflowException, SQLAlchemyError, CommandError, OSError)
"""The errors that a store raises."""


def nothing_run(study: Study, why: str, uri: str | None = None) -> UserError:
    """Makes the error for a store without runs; its line says how to start."""
    quick = (study.folder / "profiles" / "quick.yaml").is_file()
    rungs = ",".join(["all", *(name for name in study.files if rung_number(name) is None)])
    words = ["run", rungs, *["--profile", "quick"] * quick]
    aside = f"  (minutes), or without --profile for {study.dataset_title}" * quick
    start = study.command(*words, uri=uri)
    return UserError(f"nothing was run yet: {why}; start with  {start}{aside}")


def deleted(uri: str, experiment: Experiment) -> str:
    """Returns the message for an experiment in MLflow's trash, "" for others."""
    if experiment.lifecycle_stage == "active":
        return ""
    back = command("-m", "mlflow", "experiments", "restore", "-x", experiment.experiment_id)
    return (
        f"the experiment {experiment.name} is in MLflow's trash; bring it back with  "
        f"MLFLOW_TRACKING_URI={mask(shlex.quote(uri))} {back}"
    )


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns a store's errors into a :class:`resnet.UserError` of one line."""
    try:
        yield
    except (*FAILURES, ImportError, ValueError) as error:  # a driver is missing, an address is none
        reason = mask(error)[:300]
        if "database is locked" in reason:
            reason = "another process holds it locked; end that one, or wait for it, and try again"
        raise UserError(f"{mask(uri)}: cannot be used as a tracking store: {reason}") from None


def check(uri: str, study: Study, *, create: bool) -> None:
    """Refuses an SQLite file that MLflow would create or fill with tables when it opens it.

    Raises:
        UserError: it is no database of this MLflow; or, unless ``create``, missing or empty.
    """
    path = file_of(uri)
    if not path or (create and not _has_content(path)):
        return
    if not _has_content(path):
        raise nothing_run(study, f"there is no {path}", uri)
    versions = "SELECT version_num FROM alembic_version"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute(versions).fetchone() or ("none",)
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise OSError(str(error)) from None
        found = str(error)
    newest = ScriptDirectory(f"{Path(mlflow.__file__).parent}/store/db_migrations")
    if found == newest.get_current_head():
        return
    # MLflow would go on with the migrations, and so write, even where it is only asked to read
    upgrade = command("-m", "mlflow", "db", "upgrade", uri)
    raise UserError(
        f"{path}: is not a whole database of MLflow {mlflow.__version__} (its version: {found}). "
        "If it holds no run of yours, delete it or name another with --tracking-uri. If a newer "
        f"MLflow made it, install that one. If an older one made it, keep a copy, then  {upgrade}"
    )


def _has_content(path: Path) -> bool:
    there = os.path.exists(path)  # noqa: PTH110 - where it is forbidden, too
    return there and not (path.is_file() and path.stat().st_size == 0)


def make(path: Path) -> None:
    """Makes MLflow's tables in an SQLite file that is missing or empty; the caller holds its lock.

    A killed MLflow does not finish its migrations later (MLflow issue 23721). So the tables are
    made in a temporary file, which then replaces the file.
    """
    if _has_content(path):
        return
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder) / "new.db"
        MlflowClient(address(elsewhere)).search_experiments(max_results=1)
        disk.write(path, elsewhere.read_bytes())


def moved(uri: str, experiment: Experiment) -> str:
    """Returns the message for a local store that was moved, "" for others.

    MLflow keeps absolute addresses: it reads and writes files where the store was.
    """
    file, location = file_of(uri), experiment.artifact_location or ""
    if not file or not location.startswith("file:") or Path(location).name != "mlartifacts":
        return ""
    there, here = Path(local_file_uri_to_path(location)), file.parent / "mlartifacts"
    if there.is_dir() or not here.is_dir():
        return ""
    folder, link = ["mkdir", "-p", str(there.parent)], ["ln", "-s", str(here), str(there)]
    lead = f"{shlex.join(folder)} && {shlex.join(link)}"
    return f"was moved from {there.parent}; move it back, or link its files:  {lead}"


def download(uri: str, run: Run, name: str, folder: str | Path) -> Path:
    """Fetches one of a run's artifacts into a folder; MlflowException, OSError if there is none."""
    # by its address, because MLflow would first ask whether a run's id is a model's
    where = {"artifact_uri": f"{run.info.artifact_uri}/{name}", "dst_path": str(folder)}
    return Path(mlflow.artifacts.download_artifacts(**where, tracking_uri=uri))
