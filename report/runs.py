"""Reads runs from MLflow into pandas; nothing here trains or writes.

Every failure of the store becomes a :class:`resnet.UserError` of one line; an artifact that is
gone is noted in :attr:`Run.gaps`, because the rest of the run can still be reported.
"""

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # read when imported

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from resnet import UserError, config
from resnet.records import CURVES, TAGS

EXPERIMENT = "resnet-ladder"
ROLES = ("rung", "recorded")
"""Of runs of a rung; the second is of restored records."""


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run: what its experiment was, and everything it measured.

    ``history`` is indexed by epoch (from 1) with the columns ``CURVES``; ``labels`` and
    ``predicted`` are class indices of the test images, None if the artifact is gone.
    """

    id: str
    rung: str
    title: str
    seed: int
    tags: dict[str, str]
    params: dict[str, Any]
    metrics: dict[str, float]
    history: pd.DataFrame
    n_train: int
    n_test: int
    source: str
    classes: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    predicted: np.ndarray | None = None
    mistakes: bytes | None = None
    assumed: dict[str, str] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    @property
    def correct(self) -> np.ndarray | None:
        """Which test images were told right: bool, shape (images,)."""
        return None if self.labels is None else self.labels == self.predicted

    @property
    def validation_images(self) -> int:
        """Images in an epoch's validation figure; 0 if the run does not say how many."""
        held_out = int(self.n_train * float(self.params.get("data.validation.fraction", 0)))
        batch = int(self.params.get("training.batch_size", 1))
        drop = self.params.get("data.validation.drop_remainder", False)
        return held_out // batch * batch if drop else held_out


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{uri}: cannot be read as a tracking store: {reason[:300]}") from None


def check_store(uri: str) -> None:
    """Refuses an SQLite file that MLflow would create or fill with tables when it opens it.

    Raises:
        UserError: there is no such file, it is empty, or not a database of MLflow's.
    """
    if not uri.startswith("sqlite:///"):
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        raise _nothing(f"there is no {path}")
    try:
        address = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise UserError(
            f"{path}: is not a database of MLflow's ({error}); name another with --tracking-uri"
        ) from None


def _nothing(why: str) -> UserError:
    return UserError(
        f"nothing was run yet: {why}; start with  python runner.py --ladder all "
        "--profile quick  (minutes), or without --profile for CIFAR-10"
    )


def search(uri: str, experiment_name: str = EXPERIMENT) -> pd.DataFrame:
    """Every run of a rung, whatever became of it: this store's own and restored records.

    Args:
        uri: MLflow tracking URI.
        experiment_name: MLflow experiment.

    Returns:
        ``mlflow.search_runs``'s frame, one row a run, newest first, with the columns of ``TAGS``
        added (``seed`` as a number); may be empty.

    Raises:
        UserError: the store or the experiment is not there, or cannot be read.
    """
    check_store(uri)
    with _reading(uri):
        mlflow.set_tracking_uri(uri)
        if mlflow.get_experiment_by_name(experiment_name) is None:
            raise _nothing(f"{uri} holds no experiment {experiment_name!r}")
        frame = mlflow.search_runs(
            experiment_names=[experiment_name],
            order_by=["attributes.start_time DESC"],
        )
    if frame.empty:
        return frame
    for name in ("role", *TAGS):  # a foreign run may lack some
        frame[name] = frame[f"tags.{name}"].fillna("") if f"tags.{name}" in frame else ""
    frame = frame[frame["role"].isin(ROLES)].reset_index(drop=True)
    frame["seed"] = pd.to_numeric(frame["seed"], errors="coerce").fillna(0).astype(int)
    return frame


def load(uri: str, frame: pd.DataFrame) -> list[Run]:
    """Loads curves and artifacts of runs.

    Args:
        uri: MLflow tracking URI.
        frame: rows of :func:`search`.

    Returns:
        The runs in the frame's order.

    Raises:
        UserError: the store cannot be read.
    """
    client = MlflowClient(uri)
    with _reading(uri), tempfile.TemporaryDirectory() as folder:
        return [
            _load(client, uri, row, Path(folder) / row.run_id)
            for row in frame.itertuples(index=False)
        ]


def epochs_done(uri: str, run_id: str) -> int:
    """Epochs that a run has recorded so far."""
    with _reading(uri):
        history = MlflowClient(uri).get_metric_history(run_id, "val_accuracy")
    return max((metric.step for metric in history), default=0)


def _load(client: MlflowClient, uri: str, row: Any, folder: Path) -> Run:
    run = client.get_run(row.run_id)
    gaps: list[str] = []
    folder.mkdir()

    def artifact(name: str, read):
        """What ``read`` makes of an artifact; None, and a line in ``gaps``, if it cannot."""
        try:
            path = mlflow.artifacts.download_artifacts(
                run_id=row.run_id, artifact_path=name, dst_path=str(folder), tracking_uri=uri
            )
            return read(Path(path))
        except (MlflowException, OSError):
            gaps.append(f"{name} is gone")
        except (ValueError, EOFError, UserError, pd.errors.ParserError):
            gaps.append(f"{name} is damaged")
        return None

    probabilities = artifact("test_probabilities.npy", _array(2))
    labels = artifact("test_labels.npy", _array(1))
    if probabilities is not None and labels is not None and len(probabilities) != len(labels):
        gaps.append("test_probabilities.npy and test_labels.npy differ in length")
        labels = None
    complete = probabilities is not None and labels is not None
    confusion = artifact("confusion_matrix.csv", lambda path: pd.read_csv(path, index_col=0))
    if confusion is not None:
        classes, n_test = tuple(map(str, confusion.columns)), int(confusion.to_numpy().sum())
    else:
        classes = tuple(map(str, range(probabilities.shape[1]))) if complete else ()
        n_test = 0
    n_test = n_test if probabilities is None else len(probabilities)
    resolved = artifact("experiment.yaml", config.read_yaml)
    assumed = (resolved or {}).get("assumed")
    history = {
        key: {metric.step: metric.value for metric in client.get_metric_history(row.run_id, key)}
        for key in CURVES
    }
    n_train, source = _training_data(run)
    return Run(
        id=row.run_id,
        rung=row.rung,
        title=row.title or row.rung,
        seed=row.seed,
        tags=dict(run.data.tags),
        params={key: _decode(value) for key, value in run.data.params.items()},
        metrics=dict(run.data.metrics),
        history=pd.DataFrame(history, columns=list(CURVES)).sort_index().rename_axis("epoch"),
        n_train=n_train,
        n_test=n_test,
        source=source,
        classes=classes,
        labels=labels if complete else None,
        predicted=probabilities.argmax(axis=1) if complete else None,
        # a record holds no images, so none are missing
        mistakes=artifact("mistakes.png", Path.read_bytes) if row.role == "rung" else None,
        assumed=assumed if isinstance(assumed, dict) else {},
        gaps=tuple(gaps),
    )


def _array(dimensions: int):
    def read(path: Path) -> np.ndarray:
        array = np.load(path, allow_pickle=False)
        if array.ndim != dimensions or not array.size:
            raise ValueError(f"{array.shape} is not the shape expected")
        return array

    return read


def _decode(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value  # logged by something else than the runner


def _training_data(run: mlflow.entities.Run) -> tuple[int, str]:
    """How many training images there were, and where they came from; (0, "") if not logged."""
    for logged in run.inputs.dataset_inputs:
        if any(tag.value == "training" for tag in logged.tags):
            profile = _decode(logged.dataset.profile or "null")
            source = _decode(logged.dataset.source or "null")
            shape = profile.get("features_shape") if isinstance(profile, dict) else None
            tags = source.get("tags") if isinstance(source, dict) else None
            return (
                shape[0] if isinstance(shape, list) else 0,
                str(tags.get("source", "")) if isinstance(tags, dict) else "",
            )
    return 0, ""
