"""Writes MLflow runs during training: a parent run per command, and a child run per job."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunStatus
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from resnet import Interrupted, events
from resnet.data import Dataset
from resnet.network import notes
from resnet.records import CURVES, artifacts, diverged, figures
from resnet.store import FAILURES, Store, data_of
from resnet.study import Job, signatures
from resnet.tracking import leases
from resnet.tracking.environment import environment
from resnet.tracking.leases import Lease, Lost
from resnet.tracking.registry import log_model
from resnet.tracking.taking import create, end, key_of, unfinished
from resnet.training import Outcome

RESUMED = "resumed_elsewhere"
_DRAWING = threading.Lock()  # each lane has its own thread, and Matplotlib is not thread-safe


@contextlib.contextmanager
def parent_run(store: Store, name: str, job: Job, dataset: Dataset) -> Iterator[str]:
    """Opens a command's parent run, yields the run's id, and ends the run.

    Parent runs of killed processes are ended too. All jobs of a parent run have the same profile
    and overrides, so ``job`` may be any of these jobs.
    """
    process = psutil.Process()
    for run in store.search(role="ladder", status="RUNNING"):
        if not _alive(store, run):
            end(store, run.info.run_id, RunStatus.KILLED)
    tags = environment(store.study) | {
        "profile": job.profile,
        "modified": job.modified,
        "dataset": dataset.name,
        "role": "ladder",
        "owner": leases.machine(),
        "pid": str(process.pid),
        "pid_started": str(process.create_time()),
    }
    lease = Lease(store, Path(str(process.pid)))
    run_id = create(store, name, tags, lease)
    with _ending(store, run_id), lease.kept(run_id, lambda: True):
        store.client.log_inputs(run_id, inputs_of(dataset))
        yield run_id


def _alive(store: Store, run: Run) -> bool:
    tags = run.data.tags
    if store.shared and tags.get("owner") != leases.machine():
        # a lease gets one more hour, because the clocks of two machines may differ
        return float(leases.read(run).get("until", 0)) > time.time() - 3600
    try:
        return str(psutil.Process(int(tags["pid"])).create_time()) == tags["pid_started"]
    except (psutil.Error, KeyError, ValueError):
        return False


@contextlib.contextmanager
def _ending(store: Store, run_id: str) -> Iterator[None]:
    try:
        yield
    except Lost:
        raise  # the run belongs to another process now
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        with contextlib.suppress(*FAILURES):  # a failure of the store must not hide ``error``
            end(store.impatient, run_id, RunStatus.KILLED if stopped else RunStatus.FAILED)
        raise
    end(store, run_id)


class RunWriter:
    """Writes the run of a job. ``store`` must confirm the run's lease before each call."""

    def __init__(self, store: Store, run_id: str, lease: Lease):
        self.store, self.run_id, self.lease = store, run_id, lease
        self._logged = {
            key: {metric.step for metric in store.client.get_metric_history(run_id, key)}
            for key in CURVES
        }

    def log_history(self, history: events.History) -> None:
        """Logs the metrics that the run lacks. A metric's step is its epoch, counted from 1."""
        metrics = [
            Metric(key, record[key], int(record["time"] * 1000), int(record["epoch"]))
            for record in history
            for key in CURVES
            if record["epoch"] not in self._logged[key]
        ]
        self.store.client.log_batch(self.run_id, metrics)
        for metric in metrics:
            self._logged[metric.key].add(metric.step)

    def log_differences(self, differs: dict[str, tuple[str, str]]) -> None:
        """Tags a resumed run with changes in hardware, threads or software since its checkpoint."""
        tags = self.store.client.get_run(self.run_id).data.tags
        lines = dict.fromkeys(tags.get(RESUMED, "").split("; "))
        lines |= dict.fromkeys(f"{key}: {then} -> {now}" for key, (then, now) in differs.items())
        text = "; ".join(filter(None, lines))[:5000]
        self.store.client.set_tag(self.run_id, RESUMED, text)

    def log_outcome(self, job: Job, dataset: Dataset, outcome: Outcome) -> None:
        self.log_history(outcome.history)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            predicted = artifacts.predictions(dataset.y_test, outcome.probabilities)
            of_images = predicted, dataset.classes
            with _DRAWING:
                artifacts.save_results(folder, *of_images, outcome.history, job.experiment.title)
                figures.mistakes(dataset, outcome.probabilities, folder / "mistakes.png")
            np.save(folder / "test_probabilities.npy", outcome.probabilities, allow_pickle=False)
            lines: list[str] = []
            outcome.network.summary(line_length=110, print_fn=lines.append)
            (folder / "model_summary.txt").write_text("\n".join(lines), encoding="utf-8")
            self.store.client.log_artifacts(self.run_id, temporary)
        tags = notes(outcome.network)
        if epoch := diverged(record["loss"] for record in outcome.history):
            tags["diverged"] = f"the loss of epoch {epoch} is not finite"
        for key, value in tags.items():
            self.store.client.set_tag(self.run_id, key, value[:5000])
        # Final metrics come last: a run killed earlier logs its outcome again when it resumes.
        model_id = log_model(self.store, self.run_id, job, dataset, outcome)
        tested_on = (dataset.name, _digest(dataset, "testing"))
        known = self.store.client.get_run(self.run_id).data.metrics
        moment = int(outcome.history[-1]["time"] * 1000)
        self.store.client.log_batch(
            self.run_id,
            [
                # MLflow's Models page ranks models by metrics that have a model and a dataset
                Metric(key, value, moment, 0, model_id, *(tested_on * key.startswith("test_")))
                for key, value in outcome.summary().items()
                if key not in known
            ],
        )

    def log_failure(self, traceback: str) -> None:
        with contextlib.suppress(*FAILURES):
            self.store.impatient.client.log_text(self.run_id, traceback, "traceback.txt")


@contextlib.contextmanager
def child_run(
    store: Store, run: Run, job: Job, dataset: Dataset, lease: Lease
) -> Iterator[RunWriter]:
    """Opens a run that :func:`take` returned, renews its lease, and sets its final status.

    Once the lease is lost, every call to the store raises ``Lost``.
    """
    run_id, key = run.info.run_id, key_of(job, dataset)
    ours = store.confirming(lease.confirm)

    def still_ours() -> bool:
        return lease.ours(run_id, unfinished(store.impatient, key.same))

    with _ending(store, run_id), lease.kept(run_id, still_ours):
        # the rung of a resumed run may have a new name, so the file is written again
        ours.client.log_text(run_id, job.experiment.to_yaml(), "experiment.yaml")
        if job.experiment.code:
            ours.client.log_text(run_id, job.experiment.code, signatures.OWN)
        if not data_of(run):
            params = [Param(*item) for item in artifacts.settings(job.experiment).items()]
            ours.client.log_batch(run_id, params=params)
            ours.client.log_inputs(run_id, inputs_of(dataset))
        # MLflow itself starts this monitor only in its fluent API, which this project does not use
        monitor = SystemMetricsMonitor(run_id, resume_logging=True)
        monitor.start()
        try:
            yield RunWriter(ours, run_id, lease)
        finally:
            monitor.finish()


def _digest(dataset: Dataset, context: str) -> str:
    # MLflow stores one dataset per name and digest, so training and test images need two digests
    return f"{dataset.fingerprint[:24]}-{context}"


def inputs_of(dataset: Dataset) -> list[DatasetInput]:
    """Returns a dataset's training and test images as inputs of an MLflow run."""

    def logged(context: str, x: np.ndarray, y: np.ndarray) -> DatasetInput:
        source, digest = CodeDatasetSource({"source": dataset.source}), _digest(dataset, context)
        made = from_numpy(x, source, targets=y, name=dataset.name, digest=digest)
        return DatasetInput(made._to_mlflow_entity(), [InputTag(artifacts.CONTEXT, context)])

    return [
        logged("training", dataset.x_train, dataset.y_train),
        logged("testing", dataset.x_test, dataset.y_test),
    ]
