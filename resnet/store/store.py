"""Opens and searches a tracking store, and waits for a store that does not answer."""

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

# MLflow reads these variables when it is imported.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# After at most one retry by MLflow, ``patiently`` retries: it informs the user and can be stopped.
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
"""Seconds to wait for a store that does not answer."""

utils.MAX_RETRY_COUNT = 1  # MLflow's default is ten attempts, which take more than 100 s

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.WARNING)
for name in ("urllib3", "mlflow.system_metrics"):
    logging.getLogger(name).setLevel(logging.ERROR)  # ``patiently`` reports these errors
# This logger prints the tracebacks of exceptions that MLflow also raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Patience:
    """Callbacks of ``Store.patiently``. Each attempt first calls ``before``, which may raise."""

    tell: Callable[[str], None]
    should_stop: Callable[[], bool]
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Store:
    """A study's MLflow experiment in a tracking store."""

    uri: str
    experiment_id: str
    study: Study
    patience: _Patience | None = None

    @property
    def client(self) -> MlflowClient:
        return cast(MlflowClient, _PatientClient(self, MlflowClient(self.uri)))

    @property
    def shared(self) -> bool:
        """Whether other machines may use this store too."""
        return file_of(self.uri) is None

    @property
    def checkpoints(self) -> Path:
        """Folder for locks and (by default) checkpoints, beside an SQLite store or else in ROOT."""
        file = file_of(self.uri)
        return (file.parent if file else ROOT) / "checkpoints"

    @property
    def impatient(self) -> "Store":
        return replace(self, patience=None)

    def waiting(self, tell: Callable[[str], None], should_stop: Callable[[], bool]) -> "Store":
        """Returns a copy of this store that repeats a call until the store answers.

        ``tell`` gets a message when the store stops answering and when it answers again. If
        ``should_stop`` returns True during a wait, ``Interrupted`` is raised.
        """
        return replace(self, patience=_Patience(tell, should_stop))

    def confirming(self, before: Callable[[], None]) -> "Store":
        """Returns a copy of this store in which each attempt at a call first runs ``before``."""
        patience = self.patience or _Patience(lambda text: None, lambda: False)
        return replace(self, patience=replace(patience, before=before))

    def search(self, *, status: str = "", **tags: str) -> list[Run]:
        """Returns the runs with these tags and, if given, this status. The newest comes first."""
        # MLflow's filters reject values with quotes, so the return statement compares these values
        tests = [f"tags.{key} = '{value}'" for key, value in tags.items() if "'" not in value]
        tests += [f"attributes.status = '{status}'"] if status else []
        found = self.client.search_runs(
            [self.experiment_id],
            " and ".join(tests),
            max_results=SEARCH_MAX_RESULTS_THRESHOLD,  # 50,000
            order_by=["attributes.start_time DESC"],
        )
        return [run for run in found if tags.items() <= run.data.tags.items()]

    def patiently(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Calls a function, and repeats the call while the store does not answer.

        A store may fail after it has done the work, so the function must be safe to call twice.
        """
        if not (patience := self.patience):
            return function(*arguments, **options)
        began, waiting, collisions = time.monotonic(), False, 0
        while True:
            try:
                patience.before()
                result = function(*arguments, **options)
            except FAILURES as error:
                # MLflow fails if another run adds the same dataset at the same time
                if collisions < 5 and re.search("IntegrityError|UniqueViolation", str(error)):
                    collisions += 1
                    continue
                if not self._away(error) or time.monotonic() - began > PATIENCE:
                    raise
                if not waiting:
                    reason = mask(error)[:150]
                    patience.tell(f"the tracking store does not answer ({reason}); waiting for it")
                waiting = True
            else:
                if waiting:
                    patience.tell("the tracking store answers again")
                return result
            for _ in range(10):  # two seconds, in short sleeps, so that Ctrl-C acts soon
                if patience.should_stop():
                    raise Interrupted
                time.sleep(0.2)

    def _away(self, error: Exception) -> bool:
        text = str(error)
        if not self.shared:
            return "database is locked" in text
        if isinstance(error, RestException):
            return error.get_http_status_code() >= 500
        if isinstance(error, MlflowException):  # a database failed, or a server did not answer
            unavailable = error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
            return unavailable or "API request to" in text
        status = getattr(getattr(error, "response", None), "status_code", 0)
        return isinstance(error, ConnectionError | OperationalError) or status >= 500


class _PatientClient:
    """An MLflow client whose calls go through :meth:`Store.patiently`."""

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
    """Opens a study's tracking store, and makes it MLflow's current store.

    Args:
        uri: tracking URI, by default the URI of ``mlflow.db`` in the project's folder. Artifacts
            are stored beside an SQLite file, or, for other databases, in the project's folder.
        study: the study, by default the one in ``experiments/``.
        create: whether to make a missing file or experiment. If False, nothing is written.
        experiment: name of the MLflow experiment, by default the name of the study.

    Raises:
        UserError: the store cannot be opened, or it does not exist and ``create`` is False.
    """
    uri, study = full(uri), study or Study.open()
    name, artifacts, file = experiment or study.name, _artifacts(uri), file_of(uri)
    # two commands that start at the same time must not both make the tables of a new file
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
                    if not client.get_experiment_by_name(name):  # if found, another machine made it
                        raise
                found = client.get_experiment_by_name(name)
    if found is None:
        raise database.nothing_run(study, f"{mask(uri)} holds no experiment {name!r}", uri)
    database.check_experiment(uri, found)
    return Store(uri, found.experiment_id, study)


def _artifacts(uri: str) -> str | None:
    """Returns the URI of a store's artifact folder, or None if a server chooses the folder."""
    scheme = uri.partition(":")[0].lower()
    if file := file_of(uri):
        if not os.path.isdir(file.parent):  # noqa: PTH112 - Path.is_dir may raise
            raise UserError(f"--tracking-uri {mask(uri)}: there is no folder {file.parent}")
        return (file.parent / "mlartifacts").as_uri()
    if scheme.partition("+")[0] in DATABASE_ENGINES:
        return (ROOT / "mlartifacts").as_uri()
    if scheme not in ("http", "https"):
        raise UserError(
            f"--tracking-uri {mask(uri)}: is not the address of a store. Write sqlite:///FILE.db "
            f"or the address of a server (http, https) or database ({', '.join(DATABASE_ENGINES)})."
        )
    return None
