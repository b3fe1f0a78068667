"""The MLflow store: how it is reached, where its files lie, and what to do while it is away.

It imports no Keras, so that the report and a cluster's nodes may use it at little cost.
"""

import contextlib
import logging
import os
import re
import shlex
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read when imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# a few tries and then :func:`patient`, which says what it waits for and lets itself be stopped
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
import sqlalchemy
from alembic.util import CommandError
from filelock import FileLock
from mlflow.entities import DatasetInput, Experiment, Run
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.exc import NoSuchModuleError, OperationalError, SQLAlchemyError

from resnet import Interrupted, UserError, config, views
from resnet.shell import EXPERIMENT, ROOT, command, file_of, hide, tracking, typed

FAILURES = (MlflowException, SQLAlchemyError, CommandError, OSError)
"""What a store raises."""
PATIENCE = 3600.0
"""Seconds for which a store that went away is waited for."""
_SCHEMAS = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.WARNING)
for name in ("urllib3", "mlflow.system_metrics"):
    logging.getLogger(name).setLevel(logging.ERROR)  # what they warn of is told by ``patient``
# it logs what it then raises, with a traceback; the error's own line says as much
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Store:
    """A tracking store, and the folder where this machine keeps what belongs to it."""

    uri: str
    experiment_id: str

    @property
    def client(self) -> MlflowClient:
        """MLflow's client for this store."""
        return MlflowClient(self.uri)

    @property
    def shared(self) -> bool:
        """Whether other machines may use it too."""
        return file_of(self.uri) is None

    @property
    def checkpoints(self) -> Path:
        """The folder for locks and, by default, checkpoints: beside the file, or at the top."""
        file = file_of(self.uri)
        return (file.parent if file else ROOT) / "checkpoints"

    def search(self, **conditions: str) -> list[Run]:
        """Runs whose tags (and ``status``) equal the conditions, newest first.

        Raises:
            MlflowException: the experiment was deleted; its runs are not gone.
        """
        parts = [
            f"attributes.status = '{value}'" if key == "status" else f"tags.{key} = '{value}'"
            for key, value in conditions.items()
            if "'" not in value  # MLflow's filters cannot say a quote: see below
        ]
        found = self.client.search_runs(
            [self.experiment_id],
            " and ".join(parts),
            max_results=SEARCH_MAX_RESULTS_THRESHOLD,  # 50,000
            order_by=["attributes.start_time DESC"],
        )
        if not found and (
            told := deleted(self.uri, self.client.get_experiment(self.experiment_id))
        ):
            raise MlflowException(told)
        tags = {key: value for key, value in conditions.items() if key != "status"}
        return [run for run in found if tags.items() <= run.data.tags.items()]


def data_of(run: Run) -> list[DatasetInput]:
    """The datasets logged with a run."""
    return run.inputs.dataset_inputs if run.inputs else []


def mask(text: object) -> str:
    """A text in one line, in which no address shows its password."""
    return hide(config.one_line(text))


def nothing_run(why: str, uri: str | None = None) -> UserError:
    """The one answer wherever there is nothing to look at."""
    start = command("runner.py", "--ladder", "all,vgg", "--profile", "quick", uri=uri)
    return UserError(
        f"nothing was run yet: {why}; start with  {start}  (minutes), or without --profile for "
        "CIFAR-10"
    )


def deleted(uri: str, experiment: Experiment) -> str:
    """The line for an experiment in MLflow's trash; empty for one that is not there."""
    if experiment.lifecycle_stage == "active":
        return ""
    back = command("-m", "mlflow", "experiments", "restore", "-x", experiment.experiment_id)
    return (
        f"the experiment {experiment.name} is in MLflow's trash; bring it back with  "
        f"MLFLOW_TRACKING_URI={mask(shlex.quote(uri))} {back}"
    )


def reason(uri: str, error: Exception) -> str:
    """What a store's error says, in plain words where the way out is known."""
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


def check(uri: str, *, create: bool = False) -> None:
    """Refuses an SQLite file that MLflow would create or fill with tables when it opens it.

    Args:
        uri: MLflow tracking URI.
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
        raise nothing_run(f"there is no {path}", uri)
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


def connect(uri: str | None = None, *, create: bool = True) -> Store:
    """Opens the tracking store and makes the experiment, if this is the first use.

    Args:
        uri: MLflow tracking URI; by default ``mlflow.db`` at the project's top. Beside an
            SQLite file lie its ``mlartifacts/`` and ``checkpoints/``; a server's artifacts are
            its own business, those of another database lie at the project's top.
        create: whether there may be a first use; without, nothing is made.

    Returns:
        The store, also set as MLflow's current one.

    Raises:
        UserError: the store cannot be opened, does not answer within some 10 s, or is not there
            and must not be made.
    """
    uri = tracking(uri)
    check(uri, create=create)
    scheme = uri.partition(":")[0].lower()
    artifacts: str | None = None
    lock: contextlib.AbstractContextManager = contextlib.nullcontext()
    if database := file_of(uri):
        if not os.path.isdir(database.parent):  # noqa: PTH112 - where it is forbidden, too
            raise UserError(f"--tracking-uri {mask(uri)}: there is no folder {database.parent}")
        artifacts = (database.parent / "mlartifacts").as_uri()
        # two runners that start on one fresh file must not both build its tables
        lock = FileLock(f"{database}.lock")
    elif scheme.partition("+")[0] in DATABASE_ENGINES:
        artifacts = (ROOT / "mlartifacts").as_uri()
    elif scheme not in ("http", "https"):
        raise UserError(
            f"--tracking-uri {mask(uri)}: write sqlite:///FILE.db, the http(s) address of a "
            f"server, or that of a database ({', '.join(DATABASE_ENGINES)})"
        )
    try:
        try_database(uri)
        with lock, _hurried():
            follow(uri)
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None and not create:
                raise nothing_run(f"{mask(uri)} holds no experiment {EXPERIMENT!r}", uri)
            if experiment is None:
                try:
                    made = client.create_experiment(EXPERIMENT, artifact_location=artifacts)
                    experiment = client.get_experiment(made)
                except MlflowException:
                    experiment = client.get_experiment_by_name(EXPERIMENT)
                    if experiment is None:
                        raise  # else another runner was first
            if experiment.lifecycle_stage == "active":
                for key, text in views.tags(experiment.experiment_id).items():
                    if key not in experiment.tags:  # a reader may have changed it
                        client.set_experiment_tag(experiment.experiment_id, key, text)
    except FAILURES as error:
        raise UserError(
            f"{mask(uri)}: cannot be used as a tracking store: {reason(uri, error)}"
        ) from None
    if told := deleted(uri, experiment):
        raise UserError(f"{mask(uri)}: {told}")
    if artifacts and experiment.artifact_location.startswith("mlflow-artifacts:"):
        raise UserError(f"{mask(uri)}: its artifacts are with an MLflow server; give its address")
    return Store(uri, experiment.experiment_id)


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """For a first contact: a store that is not there should be said so soon."""
    hurry = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    kept = {name: os.environ[name] for name in hurry}
    os.environ.update(hurry)
    try:
        yield
    finally:
        os.environ.update(kept)


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


def follow(uri: str) -> None:
    """Tells the database of a local store that was moved or renamed where its artifacts are.

    MLflow keeps absolute addresses. Nothing is done if they hold, as in a copy of the file alone,
    or are none of this project's.

    Args:
        uri: MLflow tracking URI.

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
                "SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)
            ).fetchall()
            for (old,) in rows:
                if not (old or "").startswith("file:") or Path(old).name != "mlartifacts":
                    continue
                there, here = (os.path.isdir(local_file_uri_to_path(url)) for url in (old, new))  # noqa: PTH112 - where it is forbidden, too
                if old == new or (there and not here):
                    continue
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


def patient(
    store: Store, tell: Callable[[str], None], should_stop: Callable[[], bool]
) -> Callable[..., Any]:
    """A way to call a store that may go away, or that others call at the same moment.

    It is waited for, and the call repeated.

    Args:
        store: which.
        tell: is told when it has gone and when it is back.
        should_stop: asked while waiting; True raises ``Interrupted``.

    Returns:
        A function that calls its first argument with the others. Such a call must do no harm
        if done twice, since a store may go away between doing it and saying so.
    """

    def call(function: Callable, *arguments: Any, **options: Any) -> Any:
        began, told, collisions = time.monotonic(), False, 0
        while True:
            try:
                result = function(*arguments, **options)
            except FAILURES as error:
                # MLflow looks for a dataset, then makes it, and so did another run meanwhile
                if collisions < 5 and re.search("IntegrityError|UniqueViolation", str(error)):
                    collisions += 1
                    continue
                if not _away(store, error) or time.monotonic() - began > PATIENCE:
                    raise
                if not told:
                    tell(f"the tracking store does not answer ({mask(error)[:150]}); waiting")
                told = True
                for _ in range(10):
                    if should_stop():
                        raise Interrupted from None
                    time.sleep(0.2)
            else:
                if told:
                    tell("the tracking store answers again")
                return result

    return call


def _away(store: Store, error: Exception) -> bool:
    """Whether the store may do later what it did not do now."""
    text = str(error)
    if not store.shared:
        return "database is locked" in text
    if isinstance(error, RestException):
        return error.get_http_status_code() >= 500
    if isinstance(error, MlflowException):
        # a database's, or no answer at all
        unavailable = error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
        return unavailable or "API request to" in text
    response = getattr(error, "response", None)
    return isinstance(error, ConnectionError | OperationalError) or (
        getattr(response, "status_code", 0) >= 500
    )
