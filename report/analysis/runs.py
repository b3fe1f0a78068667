"""Reads runs from MLflow into pandas.

If the store cannot be read, a :class:`resnet.UserError` is raised. A missing artifact is only noted
in :attr:`Run.gaps`, because the report can use the rest of the run.
"""

import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from scipy import stats

from report.analysis import statistics
from resnet import UserError
from resnet.records import CURVES, Record, diverged, unguarded
from resnet.store import connect, data_of, download, explained
from resnet.study import KEYS, Study, read_yaml

IDENTITY = [key for key in KEYS if key not in ("title", "backend")]
"""The tags without which the report cannot tell what was run."""
SETTLED = 10
"""The number of final epochs from which :attr:`Run.jumps` is computed."""
PREDICTIONS = {"label": "int64", "predicted": "int64", "truth_probability": "float64"}
NO_PREDICTIONS = pd.DataFrame(columns=[*PREDICTIONS])


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run, with its settings and measurements.

    ``history`` is indexed by epoch (from 1) and has the columns ``CURVES``. ``predictions`` has the
    columns ``PREDICTIONS`` and one row per test image, or no row if the artifact is missing.
    """

    id: str
    rung: str
    title: str
    seed: int
    begun: pd.Timestamp
    tags: dict[str, str]
    params: dict[str, Any]
    metrics: dict[str, float]
    history: pd.DataFrame
    n_train: int
    source: str
    classes: tuple[str, ...] = ()
    predictions: pd.DataFrame = field(default_factory=lambda: NO_PREDICTIONS)
    assumed: dict[str, str] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()

    def metric(self, name: str) -> float:
        return self.metrics.get(name, np.nan)

    @cached_property
    def bounds(self) -> dict[str, Any]:
        """The value of ``Study.bounds`` when the run began; empty if unknown."""
        bounds = _decode(self.tags.get("bounds", ""))
        return bounds if isinstance(bounds, dict) else {}

    @property
    def device_seconds(self) -> float:
        """Device time of the epochs that this run trained, divided by the number of lanes."""
        shared = self.history["epoch_seconds"].iloc[: int(self.metrics.get("shared_epochs", 0))]
        lanes = self.tags.get("lanes", "")  # a record may hold any text
        own = self.metric("train_seconds") - float(shared.sum())
        return own / (int(lanes) if re.fullmatch("[1-9][0-9]{0,3}", lanes) else 1)

    @property
    def n_test(self) -> int:
        return len(self.predictions)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each test image was classified correctly: bool, shape (images,)."""
        return (self.predictions["label"] == self.predictions["predicted"]).to_numpy()

    @property
    def interval(self) -> statistics.Interval:
        """Wilson's 95 % interval of this network's test accuracy; NaN without predictions."""
        if not self.n_test:
            return statistics.NO_INTERVAL
        test = stats.binomtest(int(self.correct.sum()), self.n_test)
        low, high = test.proportion_ci(method="wilson")
        return float(low), float(high)

    @cached_property
    def floor(self) -> float:
        truth = self.predictions["truth_probability"].to_numpy()
        return statistics.seed_floor(truth) if len(truth) else np.nan

    @cached_property
    def jumps(self) -> float:
        """Half the mean squared change of validation accuracy per epoch; NaN if epochs are missing.

        This estimates the variance of one epoch's accuracy from the last ``SETTLED`` epochs that
        have the tested epoch's learning rate. If fewer than three have it, the rate is ignored.
        """
        curve, rate = self.curve("val_accuracy"), self.curve("learning_rate")
        tested = self.metric("tested_epoch")
        if len(curve) < 2 or len(rate) != len(curve) or tested not in rate.index:
            return np.nan
        there = curve[np.isclose(rate, rate[tested], rtol=1e-3)]
        last = (there if len(there) >= 3 else curve).tail(SETTLED)
        return float((last.diff() ** 2).mean() / 2)

    @property
    def diverged(self) -> int:
        return diverged(self.history["loss"]) if len(self.curve("val_accuracy")) else 0

    @property
    def lacks(self) -> str:
        """Why the deviation between seeds cannot be estimated with this run; "" if it can."""
        if self.metric("epochs_run") == 1 == len(self.curve("val_accuracy")):
            return "one epoch does not show how much validation accuracy varies"
        known = {
            "test accuracy": self.metric("test_accuracy"),
            "predictions": self.floor,
            "curve of validation accuracy": self.jumps,
        }
        gone = " and its ".join(what for what, value in known.items() if math.isnan(value))
        return f"the run lacks its {gone}" * bool(gone)

    def curve(self, name: str) -> pd.Series:
        """Returns a curve, indexed by epoch; empty if any epoch is missing."""
        values = self.history[name].dropna()
        whole = list(values.index) == list(range(1, int(self.metrics.get("epochs_run", -1)) + 1))
        return values if whole else values.iloc[:0]


def search(uri: str, study: Study) -> pd.DataFrame:
    """Finds all training runs of a study in a store, whatever their status.

    Returns:
        A data frame with one :func:`row` per run, newest first; may be empty.

    Raises:
        UserError: the study's MLflow experiment cannot be found and read, or a run lacks a tag.
    """
    store = connect(uri, study, create=False)
    with explained(uri):
        found = [(run.info, run.data.tags) for run in store.search()]
    rows = []
    for info, tags in found:
        # a run that lost the tag ``role`` may still be a training run
        if tags.get("role", "rung") != "rung" or not any(map(tags.get, IDENTITY)):
            continue
        if lost := [name for name in ("role", *IDENTITY) if name not in tags]:
            raise UserError(
                f"run {info.run_id[:8]} lacks the tag {lost[0]!r}, without which the report cannot "
                "tell what was run. Set the tag or delete the run in MLflow."
            )
        begun = pd.Timestamp(info.start_time, unit="ms")
        rows.append(row(info.run_id, info.status, begun, tags))
    return pd.DataFrame(rows)


def row(run_id: str, status: str, begun: pd.Timestamp, tags: Mapping[str, str]) -> dict[str, Any]:
    """Makes a row of the frame for :func:`.selection.select`.

    The columns are ``run_id``, ``status``, ``start_time``, ``role`` and ``KEYS``. ``role`` is
    ``rung`` for a run in MLflow, and ``recorded`` for a record. ``seed`` is a number.
    """
    named = {name: tags.get(name, "") for name in ("role", *KEYS)}
    about = {"run_id": run_id, "status": status, "start_time": begun}
    return about | named | {"seed": int(named["seed"])}


def load(uri: str, frame: pd.DataFrame) -> list[Run]:
    """Loads the curves and artifacts of the runs in a frame from :func:`search`.

    Raises:
        UserError: the store cannot be read.
    """
    client = MlflowClient(uri)
    with explained(uri), tempfile.TemporaryDirectory() as folder:
        return [
            _load(client, uri, row, Path(folder) / row.run_id)
            for row in frame.itertuples(index=False)
        ]


def of_record(record: Record) -> Run:
    """Makes a run from its record."""
    profiles = [json.loads(d.profile or "null") for d in record.inputs if d.context == "training"]
    shapes = [profile["features_shape"] for profile in profiles if profile]
    history = pd.DataFrame(record.curves, columns=list(CURVES))
    experiment = record.resolved
    return Run(
        id=record.run_id,
        rung=record.key.rung,
        title=record.key.title,
        seed=int(record.key.seed),
        begun=pd.Timestamp(record.start_time, unit="ms"),
        tags=record.tags | {"role": "recorded"},
        params=experiment.flat(),
        metrics={key: values[-1] for key, values in record.curves.items()} | record.final,
        history=history.set_index(history.index + 1).rename_axis("epoch"),
        n_train=shapes[0][0] if shapes else 0,
        source="",
        classes=tuple(record.classes),
        predictions=record.predictions.frame().astype(PREDICTIONS),
        assumed=dict(experiment.assumed),
    )


def mistakes(uri: str, run: Run) -> bytes | None:
    """Reads the PNG that ``resnet.records.figures.mistakes`` drew; None if it is missing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_of_store = MlflowClient(uri).get_run(run.id)
            return download(uri, run_of_store, "mistakes.png", folder).read_bytes()
        except (MlflowException, OSError):
            return None


def _load(client: MlflowClient, uri: str, row: Any, folder: Path) -> Run:
    run = client.get_run(row.run_id)
    gaps: list[str] = []
    folder.mkdir()

    def artifact(name: str, read: Callable[[Path], Any]) -> Any:
        """Reads an artifact with ``read``; if this fails, notes a gap and returns None."""
        try:
            return read(download(uri, run, name, folder))
        except (MlflowException, OSError, ValueError, UserError) as error:
            reason = " ".join(str(error).split())[:100]
            gaps.append(f"{name} is missing or damaged ({reason})")
        return None

    accuracy = run.data.metrics.get("test_accuracy", np.nan)
    predictions = artifact("test_predictions.csv", lambda path: _predictions(path, accuracy))
    classes = artifact(
        "confusion_matrix.csv",  # read as text, because a class may be called "true" or "1e3"
        lambda path: tuple(
            pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
            .iloc[0, 1:]
            .map(unguarded)
        ),
    )
    used = 0 if predictions is None else 1 + int(predictions.iloc[:, :2].to_numpy().max())
    if len(classes or ()) < used:
        classes = tuple(map(str, range(used)))
    resolved = artifact("experiment.yaml", read_yaml) or {}
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
        begun=row.start_time,
        tags=dict(run.data.tags),
        params={key: _decode(value) for key, value in run.data.params.items()},
        metrics=dict(run.data.metrics),
        history=pd.DataFrame(history, columns=list(CURVES)).sort_index().rename_axis("epoch"),
        n_train=n_train,
        source=source,
        classes=classes or (),
        predictions=NO_PREDICTIONS if predictions is None else predictions,
        assumed=resolved.get("assumed", {}),
        gaps=tuple(gaps),
    )


def _predictions(path: Path, accuracy: float) -> pd.DataFrame:
    frame = pd.read_csv(path, usecols=list(PREDICTIONS), dtype=PREDICTIONS)[list(PREDICTIONS)]
    frame = frame.fillna({"truth_probability": 0.0})  # NaN if the network diverged
    found = (frame["label"] == frame["predicted"]).mean()
    if not abs(found - accuracy) * len(frame) < 0.5:
        raise ValueError(f"it gives an accuracy of {found:.4f}, but the run says {accuracy:.4f}")
    return frame


def _decode(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value  # the runner logs JSON; this value came from elsewhere


def _training_data(run: mlflow.entities.Run) -> tuple[int, str]:
    """Returns the number of training images and their source; (0, "") if not logged."""
    for logged in data_of(run):
        if any(tag.value == "training" for tag in logged.tags):
            profile = json.loads(logged.dataset.profile or "{}")
            source = json.loads(logged.dataset.source)
            return profile.get("features_shape", [0])[0], source["tags"]["source"]
    return 0, ""
