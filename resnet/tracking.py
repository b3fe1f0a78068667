"""Everything that knows MLflow: where runs go, what they hold, which are finished.

One experiment ``resnet-ladder``; one parent run an invocation, one child a (rung, seed). A
child is found again by what it is: config hash, dataset fingerprint and seed.
"""

import contextlib
import functools
import json
import logging
import os
import platform
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import keras
import mlflow
import numpy as np
import pandas as pd
import psutil
from filelock import FileLock
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Metric, Run, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from resnet import UserError, config, figures, models
from resnet.config import Job
from resnet.data import Dataset
from resnet.training import Outcome

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = "resnet-ladder"
EPOCH_METRICS = (
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "images_per_second",
    "epoch_seconds",
)

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
    """Tags that say what produced a run: code, versions, hardware."""
    tags = {
        "backend": keras.backend.backend(),
        "device": _device(),
        "host": socket.gethostname(),
        "version.python": platform.python_version(),
    }
    for package in ("keras", "tensorflow", "jax", "numpy", "mlflow"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            tags[f"version.{package}"] = metadata.version(package)
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


def _device() -> str:
    if keras.backend.backend() == "jax":
        import jax

        kind = jax.devices()[0]
        if kind.platform != "cpu":
            return kind.device_kind
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # Linux keeps the processor's name there
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores"


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
    except Exception as error:
        interrupted = type(error).__name__ == "Interrupted"
        mlflow.end_run(RunStatus.to_string(RunStatus.KILLED if interrupted else RunStatus.FAILED))
        raise
    except BaseException:
        mlflow.end_run(RunStatus.to_string(RunStatus.KILLED))
        raise
    mlflow.end_run()


class ChildRun:
    """One (rung, seed) in MLflow: begun or taken up again, fed, finished."""

    def __init__(self, store: Store, run_id: str):
        self.client = store.client
        self.run_id = run_id
        self._logged = {
            key: {metric.step for metric in self.client.get_metric_history(run_id, key)}
            for key in EPOCH_METRICS
        }

    def log_history(self, history: list[dict[str, float]]) -> None:
        """Logs the epochs that MLflow does not have yet; the step is the epoch, from 1."""
        metrics = [
            Metric(key, record[key], int(record["time"] * 1000), int(record["epoch"]))
            for record in history
            for key in EPOCH_METRICS
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
            np.save(folder / "test_probabilities.npy", outcome.probabilities, allow_pickle=False)
            np.save(folder / "test_labels.npy", dataset.y_test, allow_pickle=False)
            confusion = pd.crosstab(
                pd.Categorical.from_codes(dataset.y_test, dataset.classes),
                pd.Categorical.from_codes(outcome.probabilities.argmax(axis=1), dataset.classes),
                rownames=["true"],
                colnames=["predicted"],
                dropna=False,
            )
            confusion.to_csv(folder / "confusion_matrix.csv")
            figures.save(
                figures.curves(outcome.history, job.experiment.title), folder / "curves.png"
            )
            figures.save(figures.confusion(confusion), folder / "confusion_matrix.png")
            figures.save(figures.mistakes(dataset, outcome.probabilities), folder / "mistakes.png")
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
            "mlflow.note.content": _description(experiment, dataset),
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
            mlflow.log_params({k: json.dumps(v) for k, v in experiment.flat().items()})
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


def _description(experiment: config.Experiment, dataset: Dataset) -> str:
    lines = [f"**{experiment.title}** on {dataset.name} ({dataset.fingerprint[:12]})"]
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
