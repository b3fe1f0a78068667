"""A tracking store: how it is opened, searched, and waited for while it is away."""

import contextlib
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read when imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# a few tries and then ``patiently``, which says what it waits for and lets itself be stopped
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from filelock import FileLock
from mlflow.entities import DatasetInput, Experiment, Run
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import OperationalError

from resnet import ROOT, Interrupted, UserError
from resnet.host.addresses import file_of, full
from resnet.host.shell import mask
from resnet.store.database import (
    FAILURES,
    check,
    deleted,
    make,
    moved,
    nothing_run,
    reason,
    try_database,
)
from resnet.study import Study

PATIENCE = 3600.0
"""Seconds for which a store that went away is waited for."""

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
    before: Callable[[], None]


@dataclass(frozen=True)
class Store:
    """A study's runs in a tracking store, and the folder where this machine keeps the rest."""

    uri: str
    experiment_id: str
    study: Study
    patience: _Patience | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client for this store, as patient as it is."""
        client = MlflowClient(self.uri)
        return cast(MlflowClient, _PatientClient(self, client)) if self.patience else client

    @property
    def shared(self) -> bool:
        """Whether other machines may use it too."""
        return file_of(self.uri) is None

    @property
    def checkpoints(self) -> Path:
        """The folder for locks and, by default, checkpoints: beside the file, or at the top."""
        file = file_of(self.uri)
        return (file.parent if file else ROOT) / "checkpoints"

    @property
    def impatient(self) -> "Store":
        """The same store; what it refuses is raised at once."""
        return replace(self, patience=None)

    def waiting(
        self,
        tell: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> "Store":
        """Returns the same store, which is waited for when it goes away; calls are then repeated.

        Args:
            tell: is told when it has gone and when it is back.
            should_stop: asked while waiting; True raises ``Interrupted``.
        """
        return replace(self, patience=_Patience(tell, should_stop, lambda: None))

    def confirming(self, before: Callable[[], None]) -> "Store":
        """Returns the same store, with something else to be called before each call."""
        patience = self.patience or _Patience(lambda text: None, lambda: False, before)
        return replace(self, patience=replace(patience, before=before))

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
        # of a deleted experiment MLflow finds no run: they would all be trained again (issue 30)
        if not found and (
            gone := deleted(self.uri, self.client.get_experiment(self.experiment_id))
        ):
            raise MlflowException(gone)
        tags = {key: value for key, value in conditions.items() if key != "status"}
        return [run for run in found if tags.items() <= run.data.tags.items()]

    def patiently(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Calls a function that may fail because the store is away, or others call it too.

        It must do no harm if done twice: a store may go away between doing and saying so.
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
                # two seconds in small steps, so that Ctrl-C is heard at once
                for _ in range(10):
                    if patience.should_stop():
                        raise Interrupted from None
                    time.sleep(0.2)
            else:
                if waiting:
                    patience.tell("the tracking store answers again")
                return result

    def _away(self, error: Exception) -> bool:
        """Whether the store may do later what it did not do now."""
        text = str(error)
        if not self.shared:
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


class _PatientClient:
    """MLflow's client, each call of which its store makes patiently."""

    def __init__(self, store: Store, client: MlflowClient):
        self._store, self._client = store, client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._store.patiently, getattr(self._client, name))


def data_of(run: Run) -> list[DatasetInput]:
    """Returns the datasets logged with a run."""
    return run.inputs.dataset_inputs if run.inputs else []


def connect(uri: str | None = None, study: Study | None = None, *, create: bool = True) -> Store:
    """Opens the tracking store and makes a study's experiment, if this is its first use.

    Args:
        uri: MLflow tracking URI; by default ``mlflow.db`` at the project's top. Beside an
            SQLite file lie its ``mlartifacts/`` and ``checkpoints/``; a server's artifacts are
            its own business, those of another database lie at the project's top.
        study: by default the one that comes with the project.
        create: whether there may be a first use; without, nothing is made.

    Returns:
        The store, also set as MLflow's current one.

    Raises:
        UserError: the store cannot be opened, does not answer within some 10 s, or is not there
            and must not be made.
    """
    uri, study = full(uri), study or Study.open()
    check(uri, study, create=create)
    artifacts = _artifacts(uri)
    database = file_of(uri)
    # two runners that start on one fresh file must not both make its tables
    lock = FileLock(f"{database}.lock") if database else contextlib.nullcontext()
    try:
        try_database(uri)
        with lock, _hurried():
            if database and create:
                make(database)
            mlflow.set_tracking_uri(uri)
            experiment = _experiment(MlflowClient(uri), study, artifacts, create)
            if experiment is None:
                raise nothing_run(study, f"{mask(uri)} holds no experiment {study.name!r}", uri)
    except FAILURES as error:
        raise UserError(
            f"{mask(uri)}: cannot be used as a tracking store: {reason(uri, error)}"
        ) from None
    if wrong := deleted(uri, experiment) or (moved(uri, experiment) if create else ""):
        raise UserError(f"{mask(uri)}: {wrong}")
    if artifacts and experiment.artifact_location.startswith("mlflow-artifacts:"):
        raise UserError(f"{mask(uri)}: its artifacts are with an MLflow server; give its address")
    return Store(uri, experiment.experiment_id, study)


def _artifacts(uri: str) -> str | None:
    """Where a store's artifacts go; None where a server says it."""
    scheme = uri.partition(":")[0].lower()
    if database := file_of(uri):
        if not os.path.isdir(database.parent):  # noqa: PTH112 - where it is forbidden, too
            raise UserError(f"--tracking-uri {mask(uri)}: there is no folder {database.parent}")
        return (database.parent / "mlartifacts").as_uri()
    if scheme.partition("+")[0] in DATABASE_ENGINES:
        return (ROOT / "mlartifacts").as_uri()
    if scheme not in ("http", "https"):
        raise UserError(
            f"--tracking-uri {mask(uri)}: write sqlite:///FILE.db, the http(s) address of a "
            f"server, or that of a database ({', '.join(DATABASE_ENGINES)})"
        )
    return None


def _experiment(
    client: MlflowClient, study: Study, artifacts: str | None, create: bool
) -> Experiment | None:
    """The study's experiment, made if it may be; None if it is not there."""
    experiment = client.get_experiment_by_name(study.name)
    if experiment is None and create:
        try:
            tags = {"mlflow.note.content": study.about}
            made = client.create_experiment(study.name, artifacts, tags)
            experiment = client.get_experiment(made)
        except MlflowException:
            experiment = client.get_experiment_by_name(study.name)
            if experiment is None:
                raise  # else another runner was first
    return experiment


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
