"""Everything that knows MLflow: where runs go, what they hold, which are finished.

One experiment ``resnet-ladder``; one parent run an invocation, one child a (rung, seed). A
child is found again by what it is: config hash, dataset fingerprint and seed. Restored records
(role ``recorded``) stand beside them and are never taken for this store's own runs.
"""

import contextlib
import csv
import functools
import hashlib
import json
import logging
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from urllib.parse import urlparse

import keras
import mlflow
import numpy as np
import pandas as pd
import psutil
from filelock import FileLock
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from resnet import UserError, config, figures, models, records
from resnet.config import Job
from resnet.data import Dataset
from resnet.records import Record
from resnet.steps import numerics
from resnet.training import Interrupted, Outcome

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "resnet-ladder"
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Store:
    """A tracking store, and the folder where this machine keeps its checkpoints for it."""

    uri: str
    checkpoints: Path
    experiment_id: str

    @property
    def client(self) -> MlflowClient:
        """MLflow's client for this store."""
        return MlflowClient(self.uri)

    @property
    def owner(self) -> str:
        """Names the checkpoint folder across machines that share a store."""
        return f"{socket.gethostname()}:{self.checkpoints}"

    def search(self, **conditions: str) -> list[Run]:
        """Runs whose tags (and ``status``) equal the conditions, newest first."""
        parts = [
            f"attributes.status = '{value}'" if key == "status" else f"tags.{key} = '{value}'"
            for key, value in conditions.items()
        ]
        return list(
            self.client.search_runs(
                [self.experiment_id], " and ".join(parts), order_by=["attributes.start_time DESC"]
            )
        )


def connect(uri: str | None = None) -> Store:
    """Opens the tracking store and makes the experiment, if this is the first use.

    Args:
        uri: MLflow tracking URI; by default ``mlflow.db`` at the project's top. Beside an
            SQLite file lie its ``mlartifacts/`` and ``checkpoints/``; for a server, artifacts
            are the server's business and checkpoints lie at the project's top.

    Returns:
        The store, also set as MLflow's current one.

    Raises:
        UserError: the store cannot be opened.
    """
    uri = uri or f"sqlite:///{ROOT / 'mlflow.db'}"
    folder, artifacts, lock = ROOT, None, contextlib.nullcontext()
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).resolve()
        if not database.parent.is_dir():
            raise UserError(f"--tracking-uri {uri}: there is no folder {database.parent}")
        folder, uri = database.parent, f"sqlite:///{database}"
        artifacts = (folder / "mlartifacts").as_uri()
        # two runners that start on one fresh file must not both build its tables
        lock = FileLock(f"{database}.lock")
    elif urlparse(uri).scheme not in ("http", "https", "file", "postgresql", "mysql", "mssql"):
        raise UserError(
            f"--tracking-uri {uri}: write sqlite:///FILE.db or the http(s) address of a server"
        )
    try:
        with lock:
            mlflow.set_tracking_uri(uri)
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                experiment = client.get_experiment(
                    client.create_experiment(EXPERIMENT, artifact_location=artifacts)
                )
            if experiment.lifecycle_stage != "active":
                raise UserError(
                    f"{uri}: the experiment {EXPERIMENT} is deleted there; bring it back with "
                    f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
                )
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{uri}: cannot be used as a tracking store: {reason[:300]}") from None
    return Store(uri, folder / "checkpoints", experiment.experiment_id)


def identity(job: Job, dataset: Dataset) -> dict[str, str]:
    """The tags by which a child run is found again."""
    return {
        "config_hash": job.experiment.hash(),
        "dataset_fingerprint": dataset.fingerprint,
        "seed": str(job.seed),
    }


@functools.cache
def environment() -> dict[str, str]:
    """Tags that say what produced a run: code, claims, versions, hardware."""
    tags = numerics() | {
        "host": socket.gethostname(),
        "version.mlflow": metadata.version("mlflow"),
        # a reader sees that the bounds were there before the result
        "claims_sha256": hashlib.sha256(config.CLAIMS.read_bytes()).hexdigest(),
    }
    commit = _git("rev-parse", "HEAD")
    tags["git_commit"] = commit or "unknown"
    tags["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower() if commit else "unknown"
    return tags


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(ROOT), *arguments],  # noqa: S607 - git is looked up as the user's
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""  # no git, or not a checkout: the tag says unknown


@contextlib.contextmanager
def parent_run(store: Store, name: str, tags: dict[str, str]) -> Iterator[str]:
    """The invocation's own run; yields its id and ends it, whatever happens.

    Parents whose process is gone (a ``kill -9``) are ended first, so that none stays RUNNING.

    Args:
        store: where.
        name: shown in the UI.
        tags: what the invocation is about.
    """
    for run in store.search(role="ladder", status="RUNNING", owner=store.owner):
        if not _alive(run.data.tags):
            store.client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))
    process = psutil.Process()
    tags = tags | {
        "role": "ladder",
        "owner": store.owner,
        "pid": str(process.pid),
        "pid_started": str(process.create_time()),
    }
    run = mlflow.start_run(
        experiment_id=store.experiment_id, run_name=name, tags=tags | environment()
    )
    with _ending():
        yield run.info.run_id


def _alive(tags: dict[str, str]) -> bool:
    try:
        return str(psutil.Process(int(tags["pid"])).create_time()) == tags["pid_started"]
    except (psutil.Error, KeyError, ValueError):
        return False


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Ends MLflow's active run with the status that tells what happened."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        mlflow.end_run(RunStatus.to_string(RunStatus.KILLED if stopped else RunStatus.FAILED))
        raise
    mlflow.end_run()


class ChildRun:
    """One (rung, seed) in MLflow: begun or taken up again, fed, finished."""

    def __init__(self, store: Store, run_id: str):
        self.client = store.client
        self.run_id = run_id
        self._logged = {
            key: {metric.step for metric in self.client.get_metric_history(run_id, key)}
            for key in records.CURVES
        }

    def log_history(self, history: list[dict[str, float]]) -> None:
        """Logs the epochs that MLflow does not have yet; the step is the epoch, from 1."""
        metrics = [
            Metric(key, record[key], int(record["time"] * 1000), int(record["epoch"]))
            for record in history
            for key in records.CURVES
            if record["epoch"] not in self._logged[key]
        ]
        if metrics:
            for start in range(0, len(metrics), 1000):  # MLflow's limit a call
                self.client.log_batch(self.run_id, metrics[start : start + 1000])
            for metric in metrics:
                self._logged[metric.key].add(metric.step)

    def log_outcome(self, job: Job, dataset: Dataset, outcome: Outcome) -> None:
        """Logs artifacts, the model and the figures that readers compare."""
        self.log_history(outcome.history)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            _save_results(
                folder,
                predictions(dataset.y_test, outcome.probabilities),
                dataset.classes,
                outcome.history,
                job.experiment.title,
            )
            np.save(folder / "test_probabilities.npy", outcome.probabilities, allow_pickle=False)
            figures.mistakes(dataset, outcome.probabilities, folder / "mistakes.png")
            lines: list[str] = []
            outcome.network.summary(line_length=110, print_fn=lines.append)
            (folder / "model_summary.txt").write_text("\n".join(lines), encoding="utf-8")
            mlflow.log_artifacts(temporary, run_id=self.run_id)
        self._log_model(outcome, dataset, job.experiment.data.pixel_scale)
        known = self.client.get_run(self.run_id).data.metrics
        moment = int(outcome.history[-1]["time"] * 1000)
        self.client.log_batch(
            self.run_id,
            [
                Metric(key, value, moment, 0)
                for key, value in outcome.summary().items()
                if key not in known
            ],
        )

    def log_failure(self, traceback: str) -> None:
        """Keeps what a failed run's process knew of the reason."""
        mlflow.log_text(traceback, "traceback.txt", run_id=self.run_id)

    def _log_model(self, outcome: Outcome, dataset: Dataset, pixel_scale: float) -> None:
        for model in mlflow.search_logged_models(
            [self.client.get_run(self.run_id).info.experiment_id],
            filter_string=f"source_run_id = '{self.run_id}'",
            output_format="list",
        ):
            self.client.delete_logged_model(model.model_id)  # of a run killed while logging it
        example = dataset.x_test[:1].astype("float32") / np.float32(pixel_scale)
        backend = keras.backend.backend()
        mlflow.keras.log_model(
            models.stock(outcome.network),
            name="model",
            signature=mlflow.models.infer_signature(example, outcome.probabilities[:1]),
            # stated, because finding them out would load the model in another process
            pip_requirements=[f"{p}=={metadata.version(p)}" for p in ("keras", "numpy", backend)],
        )


def predictions(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """What the report needs of a run's test probabilities, one row an image.

    Args:
        labels: true class indices (n,).
        probabilities: (n, classes).

    Returns:
        ``label``, ``predicted`` (class indices) and ``truth_probability``, the one given to the
        true class, to four decimals.
    """
    of_truth = probabilities[np.arange(len(labels)), labels]
    return pd.DataFrame(
        {
            "label": labels,
            "predicted": probabilities.argmax(axis=1),
            "truth_probability": of_truth.astype("float64").round(4),
        }
    )


def _save_results(
    folder: Path,
    predicted: pd.DataFrame,
    classes: Sequence[str],
    history: list[dict[str, float]],
    title: str,
) -> None:
    """Writes the artifacts that need neither images nor the model."""
    predicted.to_csv(folder / "test_predictions.csv", index=False)
    confusion = pd.crosstab(
        pd.Categorical.from_codes(predicted["label"], classes),
        pd.Categorical.from_codes(predicted["predicted"], classes),
        rownames=["true"],
        colnames=["predicted"],
        dropna=False,
    )
    confusion.to_csv(folder / "confusion_matrix.csv")
    figures.save(figures.curves(history, title), folder / "curves.png")
    figures.save(figures.confusion(confusion), folder / "confusion_matrix.png")


@contextlib.contextmanager
def child_run(
    store: Store, job: Job, dataset: Dataset, tags: dict[str, str], parent_id: str
) -> Iterator[ChildRun]:
    """Begins a child run, or takes up the unfinished one of the same identity.

    The caller holds the identity's lock, so an unfinished run of this machine's belongs to a
    process that is gone.

    Args:
        store: where.
        job: its experiment's values become the run's params.
        dataset: logged with MLflow's own dataset facility.
        tags: further tags.
        parent_id: the invocation's run.

    Yields:
        The run; it is ended FINISHED, FAILED or KILLED.
    """
    experiment = job.experiment
    tags = (
        identity(job, dataset)
        | environment()
        | tags
        | {
            "role": "rung",
            "rung": experiment.name,
            "title": experiment.title,
            "dataset": dataset.name,
            "owner": store.owner,
            "mlflow.parentRunId": parent_id,
            "mlflow.note.content": _description(experiment, dataset.name, dataset.fingerprint),
        }
    )
    earlier = unfinished(store, job, dataset)
    run = mlflow.start_run(
        run_id=earlier.info.run_id if earlier else None,
        experiment_id=store.experiment_id,
        run_name=f"{experiment.name} · seed {job.seed}",
        nested=True,
        tags=tags,
        log_system_metrics=True,
    )
    with _ending():
        if not earlier or not earlier.inputs.dataset_inputs:
            mlflow.log_params(_params(experiment))
            mlflow.log_text(experiment.to_yaml(), "experiment.yaml")
            for context, x, y in (
                ("training", dataset.x_train, dataset.y_train),
                ("testing", dataset.x_test, dataset.y_test),
            ):
                mlflow.log_input(
                    mlflow.data.from_numpy(
                        x,
                        source=CodeDatasetSource({"source": dataset.source}),
                        targets=y,
                        name=dataset.name,
                        # of one name and digest MLflow would keep the first alone
                        digest=f"{dataset.fingerprint[:24]}-{context}",
                    ),
                    context=context,
                )
        yield ChildRun(store, run.info.run_id)


def _params(experiment: config.Experiment) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in experiment.flat().items()}


def _description(experiment: config.Experiment, dataset: str, fingerprint: str) -> str:
    lines = [f"**{experiment.title}** on {dataset} ({fingerprint[:12]})"]
    lines += [f"- assumed `{key}`: {reason}" for key, reason in experiment.assumed.items()]
    return "\n".join(lines)


def unfinished(store: Store, job: Job, dataset: Dataset) -> Run | None:
    """This machine's newest run of that identity that was begun and not finished."""
    runs = store.search(**identity(job, dataset), role="rung", owner=store.owner)
    return next((run for run in runs if run.info.status != "FINISHED"), None)


def finished(store: Store, job: Job, dataset: Dataset) -> Run | None:
    """The newest finished run of that identity, whoever made it."""
    runs = store.search(**identity(job, dataset), role="rung", status="FINISHED")
    return runs[0] if runs else None


def abandon(store: Store, run: Run) -> None:
    """Gives an unfinished run up for good: it will not be taken up again."""
    store.client.delete_tag(run.info.run_id, "owner")
    if run.info.status == "RUNNING":
        store.client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.KILLED))


_CONTEXT = "mlflow.data.context"
_OF_THIS_STORE = ("role", "owner", "host", "recorded_run_id", "record_sha256")
"""Tags that say where a run lies rather than what it is; MLflow's own are left out with them."""


def recordable(store: Store) -> list[Run]:
    """This store's own finished runs of the full profile without overrides, newest first."""
    runs = store.search(role="rung", status="FINISHED", profile="full")
    return [run for run in runs if not run.data.tags.get("modified")]


def to_record(store: Store, run: Run) -> Record:
    """Takes a finished run out of a store.

    Args:
        store: where it is.
        run: own or restored; of a restored one the same record results.

    Returns:
        The record.

    Raises:
        UserError: an artifact is gone, or the run does not agree with itself.
    """
    run_id, tags = run.info.run_id, run.data.tags
    source = f"run {run_id} ({run.info.run_name})"
    with tempfile.TemporaryDirectory() as folder:

        def artifact(name: str) -> Path:
            return Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run_id, artifact_path=name, dst_path=folder, tracking_uri=store.uri
                )
            )

        try:
            with artifact("confusion_matrix.csv").open(encoding="utf-8", newline="") as file:
                classes = next(csv.reader(file))[1:]
            histories = {
                key: sorted(
                    (metric.step, metric.timestamp, metric.value)
                    for metric in store.client.get_metric_history(run_id, key)
                )
                for key in records.CURVES
            }
            return Record(
                run_id=tags.get("recorded_run_id", run_id),
                run_name=run.info.run_name,
                start_time=run.info.start_time,
                end_time=run.info.end_time,
                tags={
                    key: value
                    for key, value in tags.items()
                    if not (key.startswith("mlflow.") or key in _OF_THIS_STORE)
                },
                inputs=_inputs(run),
                classes=classes,
                experiment=artifact("experiment.yaml").read_text(encoding="utf-8").splitlines(),
                final={
                    key: value
                    for key, value in run.data.metrics.items()
                    if not (key in records.CURVES or key.startswith("system/"))
                },
                time=[moment for _, moment, _ in histories["loss"]],
                curves={key: [value for *_, value in points] for key, points in histories.items()},
                predictions=records.Predictions.of(pd.read_csv(artifact("test_predictions.csv"))),
            )
        except ValidationError as error:
            raise records.explain(source, error) from None
        except (MlflowException, OSError, ValueError, StopIteration) as error:
            reason = config.one_line(error)
            raise UserError(f"{source}: cannot be recorded: {reason[:300]}") from None


def _inputs(run: Run) -> list[records.DataInput]:
    found = []
    for logged in run.inputs.dataset_inputs:
        source = json.loads(logged.dataset.source)
        path = source.get("tags", {}).get("source")
        if path:  # this machine's folders mean nothing elsewhere; the digest says what was there
            source["tags"]["source"] = PurePath(path).name
        found.append(
            records.DataInput(
                name=logged.dataset.name,
                digest=logged.dataset.digest,
                source_type=logged.dataset.source_type,
                source=json.dumps(source),
                schema=logged.dataset.schema,
                profile=logged.dataset.profile,
                context=next(tag.value for tag in logged.tags if tag.key == _CONTEXT),
            )
        )
    return sorted(found, key=lambda data: (data.context, data.digest))


def restore(
    store: Store,
    found: dict[Path, Record],
    tell: Callable[[Path], None] = lambda path: None,
) -> int:
    """Puts records into a store, each under the role ``recorded``, those that are not yet there.

    A run under way has the role ``restoring``, and ``recorded`` is set last: what a killed
    process leaves is removed by the next call, and nothing is there twice. A record that has
    changed since it was restored, or whose restored files are gone, is put there anew.

    Args:
        store: where.
        found: from :func:`resnet.records.load_all`.
        tell: is told of each file whose run was put into the store.

    Returns:
        How many were put there.

    Raises:
        UserError: the store refuses a record; the line names its file.
    """
    store.checkpoints.mkdir(parents=True, exist_ok=True)
    count = 0
    with FileLock(store.checkpoints / "restore.lock"):
        for run in store.search(role="restoring"):
            store.client.delete_run(run.info.run_id)
        there = {run.data.tags["recorded_run_id"]: run for run in store.search(role="recorded")}
        for path, record in found.items():
            earlier = there.get(record.run_id)
            if (
                earlier
                and earlier.data.tags["record_sha256"] == record.sha256
                and store.client.list_artifacts(earlier.info.run_id)
            ):
                continue
            try:
                run_id = _put_back(store, record)
                if earlier:
                    store.client.delete_run(earlier.info.run_id)
                store.client.set_tag(run_id, "role", "recorded")
            except (MlflowException, SQLAlchemyError, OSError) as error:
                reason = config.one_line(error)
                raise UserError(f"{path}: cannot be put into {store.uri}: {reason[:300]}") from None
            count += 1
            tell(path)
    return count


def _put_back(store: Store, record: Record) -> str:
    client = store.client
    run = client.create_run(
        store.experiment_id,
        start_time=record.start_time,
        run_name=record.run_name,
        tags=record.tags
        | {
            "mlflow.note.content": _description(
                record.resolved, record.tags["dataset"], record.tags["dataset_fingerprint"]
            ),
            "role": "restoring",
            "recorded_run_id": record.run_id,
            "record_sha256": record.sha256,
            "mlflow.parentRunId": _parent_of_records(store),
        },
    )
    run_id = run.info.run_id
    client.log_batch(run_id, params=[Param(*item) for item in _params(record.resolved).items()])
    points = [
        Metric(key, value, moment, epoch)
        for key, values in record.curves.items()
        for epoch, (moment, value) in enumerate(zip(record.time, values, strict=True), 1)
    ] + [Metric(key, value, record.time[-1], 0) for key, value in record.final.items()]
    for start in range(0, len(points), 1000):  # MLflow's limit a call
        client.log_batch(run_id, points[start : start + 1000])
    client.log_inputs(
        run_id,
        [
            DatasetInput(
                mlflow.entities.Dataset(
                    data.name,
                    data.digest,
                    data.source_type,
                    data.source,
                    data.schema_,
                    data.profile,
                ),
                [InputTag(_CONTEXT, data.context)],
            )
            for data in record.inputs
        ],
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "experiment.yaml").write_text("\n".join([*record.experiment, ""]), "utf-8")
        _save_results(
            folder,
            record.predictions.frame(),
            record.classes,
            record.history,
            record.resolved.title,
        )
        client.log_artifacts(run_id, temporary)
    client.set_terminated(run_id, end_time=record.end_time)
    return run_id


def _parent_of_records(store: Store) -> str:
    """The one run under which the UI shows all restored ones."""
    parents = store.search(role="records")
    if parents:
        return parents[0].info.run_id
    run = store.client.create_run(
        store.experiment_id, run_name="recorded runs", tags={"role": "records"}
    )
    store.client.set_terminated(run.info.run_id)
    return run.info.run_id
