"""A tracking store: how it is opened, searched, and waited for while it is away."""

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read when imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# one more try and then ``patiently``, which says what it waits for and lets itself be stopped
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("PGCONNECT_TIMEOUT", "5")

import mlflow
from filelock import FileLock
from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.store.db import utils
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import OperationalError

from resnet import ROOT, Interrupted, UserError
from resnet.host.addresses import file_of, full
from resnet.host.messages import mask
from resnet.store import database
from resnet.store.database import FAILURES
from resnet.study import Study

PATIENCE = 3600.0
"""Seconds for which a store that went away is waited for."""

utils.MAX_RETRY_COUNT = 1  # of MLflow's ten attempts to connect, the last begins after 100 s

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.WARNING)
for name in ("urllib3", "mlflow.system_metrics"):
    logging.getLogger(name).setLevel(logging.ERROR)  # ``patiently`` says it
# it logs what it then raises, with a traceback; the error's own line says as much
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Patience:
    """How a store is waited for; ``before`` is called before each attempt, and may refuse it."""

    tell: Callable[[str], None]
    should_stop: Callable[[], bool]
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Store:
    """A study's runs in a tracking store, and the folder where this machine keeps the rest."""

    uri: str
    experiment_id: str
    study: Study
    patience: _Patience | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client; each of its calls waits as this store does."""
        client = MlflowClient(self.uri)
        return cast(MlflowClient, _PatientClient(self, client)) if self.patience else client

    @property
    def shared(self) -> bool:
        """Whether other machines may use the store too."""
        return file_of(self.uri) is None

    @property
    def checkpoints(self) -> Path:
        """The folder for locks and, by default, checkpoints: beside the file, or at the top."""
        file = file_of(self.uri)
        return (file.parent if file else ROOT) / "checkpoints"

    @property
    def impatient(self) -> "Store":
        return replace(self, patience=None)

    def waiting(self, tell: Callable[[str], None], should_stop: Callable[[], bool]) -> "Store":
        """Returns the same store, whose calls are repeated while it is away.

        ``tell`` gets a line when the store goes and when it is back. ``should_stop`` is called
        while waiting; True raises ``Interrupted``.
        """
        return replace(self, patience=_Patience(tell, should_stop))

    def confirming(self, before: Callable[[], None]) -> "Store":
        """Returns the same store, which calls ``before`` before each call and each repetition."""
        patience = self.patience or _Patience(lambda text: None, lambda: False)
        return replace(self, patience=replace(patience, before=before))

    def search(self, **conditions: str) -> list[Run]:
        """Returns the runs whose tags (and ``status``) equal the conditions, newest first."""
        tests = [
            f"attributes.status = '{value}'" if key == "status" else f"tags.{key} = '{value}'"
            for key, value in conditions.items()
            if "'" not in value  # MLflow's filters take no quote: the last line compares it
        ]
        found = self.client.search_runs(
            [self.experiment_id],
            " and ".join(tests),
            max_results=SEARCH_MAX_RESULTS_THRESHOLD,  # 50,000
            order_by=["attributes.start_time DESC"],
        )
        tags = {key: value for key, value in conditions.items() if key != "status"}
        return [run for run in found if tags.items() <= run.data.tags.items()]

    def patiently(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Calls a function that may fail because the store is away, or others call it too.

        The function must do no harm if called twice: a store may go away before it answers.
        """
        if not (patience := self.patience):
            return function(*arguments, **options)
        began, waiting, collisions = time.monotonic(), False, 0
        while True:
            try:
                patience.before()
                result = function(*arguments, **options)
            except FAILURES as error:
                # MLflow looks for a dataset, then makes it, and so did another run meanwhile
                if collisions < 5 and re.search("IntegrityError|UniqueViolation", str(error)):
                    collisions += 1
                    continue
                if not self._away(error) or time.monotonic() - began > PATIENCE:
                    raise
                if not waiting:
                    reason = mask(error)[:150]
                    patience.tell(f"the tracking store does not answer ({reason}); waiting")
                waiting = True
            else:
                if waiting:
                    patience.tell("the tracking store answers again")
                return result
            for _ in range(10):  # two seconds in small steps, so that Ctrl-C is heard at once
                if patience.should_stop():
                    raise Interrupted
                time.sleep(0.2)

    def _away(self, error: Exception) -> bool:
        """Returns whether the error is temporary, so that a retry may succeed."""
        text = str(error)
        if not self.shared:
            return "database is locked" in text
        if isinstance(error, RestException):
            return error.get_http_status_code() >= 500
        if isinstance(error, MlflowException):  # from a database, or without any answer
            unavailable = error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
            return unavailable or "API request to" in text
        status = getattr(getattr(error, "response", None), "status_code", 0)
        return isinstance(error, ConnectionError | OperationalError) or status >= 500


class _PatientClient:
    """MLflow's client, whose calls wait for the store."""

    def __init__(self, store: Store, client: MlflowClient):
        self._store, self._client = store, client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._store.patiently, getattr(self._client, name))


def data_of(run: Run) -> list[DatasetInput]:
    """Returns the datasets logged with a run."""
    return run.inputs.dataset_inputs if run.inputs else []


def connect(
    uri: str | None = None,
    study: Study | None = None,
    *,
    create: bool = True,
    experiment: str | None = None,
) -> Store:
    """Opens a study's tracking store (default: ``mlflow.db``), and makes it MLflow's current one.

    Args:
        uri: MLflow tracking URI. Beside an SQLite file lie its ``mlartifacts/`` and
            ``checkpoints/``. A server keeps its artifacts itself; those of another database lie
            at the project's top.
        study: by default the one that comes with the project.
        create: whether a missing file and experiment are made; if not, nothing is written.
        experiment: name of the experiment in MLflow, by default the study's.

    Raises:
        UserError: the store cannot be opened, or does not exist and must not be made.
    """
    uri, study = full(uri), study or Study.open()
    name, artifacts, file = experiment or study.name, _artifacts(uri), file_of(uri)
    # two runners that start on one fresh file must not both make its tables
    lock = FileLock(f"{file}.lock") if file and create else contextlib.nullcontext()
    with database.explained(uri):
        database.check(uri, study, create=create)

        with lock:
            if file and create:
                database.make(file)
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(name)
            if create and not found:
                try:
                    client.create_experiment(name, artifacts, {"mlflow.note.content": study.about})
                except MlflowException:
                    if not client.get_experiment_by_name(name):  # else another machine was first
                        raise
                found = client.get_experiment_by_name(name)
    if found is None:
        raise database.nothing_run(study, f"{mask(uri)} holds no experiment {name!r}", uri)
    if wrong := database.deleted(uri, found) or database.moved(uri, found):
        raise UserError(f"{mask(uri)}: {wrong}")

    return Store(uri, found.experiment_id, study)


def _artifacts(uri: str) -> str | None:
    """Where a store's artifacts go; None for a server, which decides itself."""
    scheme = uri.partition(":")[0].lower()
    if file := file_of(uri):
        if not os.path.isdir(file.parent):  # noqa: PTH112 - where it is forbidden, too
            raise UserError(f"--tracking-uri {mask(uri)}: there is no folder {file.parent}")
        return (file.parent / "mlartifacts").as_uri()
    if scheme.partition("+")[0] in DATABASE_ENGINES:
        return (ROOT / "mlartifacts").as_uri()
    if scheme not in ("http", "https"):
        raise UserError(
            f"--tracking-uri {mask(uri)}: write sqlite:///FILE.db, the http(s) address of a "
            f"server, or that of a database ({', '.join(DATABASE_ENGINES)})"
        )
    return None
