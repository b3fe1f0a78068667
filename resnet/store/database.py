"""Checks a store's database before MLflow uses it, and explains MLflow's errors to the user."""

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
"""Exceptions that MLflow raises if a store fails."""


def nothing_run(study: Study, why: str, uri: str | None = None) -> UserError:
    """Returns the error for a store without runs. The error's message names a command to run."""
    quick = (study.folder / "profiles" / "quick.yaml").is_file()
    rungs = ",".join(["all", *(name for name in study.files if rung_number(name) is None)])
    words = ["run", rungs, *["--profile", "quick"] * quick]
    full = f"without --profile quick, the command trains on {study.dataset_title}"
    aside = f"  (the quick profile takes minutes; {full})" * quick
    start = study.command(*words, uri=uri)
    return UserError(f"nothing has been run yet: {why}. Start with:  {start}{aside}")


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns exceptions of a store into a :class:`resnet.UserError` with a one-line message."""
    try:
        yield
    except (*FAILURES, ImportError, ValueError) as error:  # no database driver, or a wrong URI
        reason = mask(error)[:300]
        if "database is locked" in reason:
            reason = "another process has locked the database. End the process or wait, then retry."
        raise UserError(f"{mask(uri)}: cannot be used as a tracking store: {reason}") from None


def check(uri: str, study: Study, *, create: bool) -> None:
    """Raises a UserError if an SQLite file is not a database of the installed MLflow version.

    A missing or empty file is an error only if ``create`` is False.
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
    # on opening the file, MLflow would migrate it, even if the user only wants to read runs
    upgrade = command("-m", "mlflow", "db", "upgrade", uri)
    raise UserError(
        f"{path}: is not a complete database of MLflow {mlflow.__version__} (schema version: "
        f"{found}). If the file holds none of your runs, delete it or name another file with "
        "--tracking-uri. If a newer MLflow made the file, install that version. If an older MLflow "
        f"made the file, copy the file, then run:  {upgrade}"
    )


def _has_content(path: Path) -> bool:
    there = os.path.exists(path)  # noqa: PTH110 - Path.exists may raise
    return there and not (path.is_file() and path.stat().st_size == 0)


def make(path: Path) -> None:
    """Makes MLflow's tables in a missing or empty SQLite file.

    The caller must hold the file's lock. MLflow leaves incomplete tables if it is killed (MLflow
    issue 23721). So the tables are made in a temporary file, which then replaces the given file.
    """
    if _has_content(path):
        return
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = Path(folder) / "new.db"
        MlflowClient(address(elsewhere)).search_experiments(max_results=1)
        disk.write(path, elsewhere.read_bytes())


def check_experiment(uri: str, experiment: Experiment) -> None:
    """Raises a UserError if an MLflow experiment is in the trash, or if its files were moved."""
    if experiment.lifecycle_stage != "active":
        restore = command("-m", "mlflow", "experiments", "restore", "-x", experiment.experiment_id)
        raise UserError(
            f"{mask(uri)}: the experiment {experiment.name} is in MLflow's trash. Restore it with:"
            f"  MLFLOW_TRACKING_URI={mask(shlex.quote(uri))} {restore}"
        )
    file, location = file_of(uri), experiment.artifact_location or ""
    if not file or not location.startswith("file:") or Path(location).name != "mlartifacts":
        return
    # MLflow stores absolute paths, so it would still use the old folder
    there, here = Path(local_file_uri_to_path(location)), file.parent / "mlartifacts"
    if here.is_dir() and not there.is_dir():
        folder, link = ["mkdir", "-p", str(there.parent)], ["ln", "-s", str(here), str(there)]
        raise UserError(
            f"{mask(uri)}: the store was moved from {there.parent}. Move it back, or link its "
            f"files:  {shlex.join(folder)} && {shlex.join(link)}"
        )


def download(uri: str, run: Run, name: str, folder: str | Path) -> Path:
    """Downloads a run's artifact. Raises MlflowException or OSError if the artifact is missing."""
    # if MLflow got a run id, it would first query whether the id belongs to a model
    where = {"artifact_uri": f"{run.info.artifact_uri}/{name}", "dst_path": str(folder)}
    return Path(mlflow.artifacts.download_artifacts(**where, tracking_uri=uri))
