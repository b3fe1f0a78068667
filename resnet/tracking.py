"""Runs in MLflow: what they hold, which are begun or finished.

One experiment ``resnet-ladder``; one parent run an invocation, one child a (rung, seed). A
child is found again by what it is: config hash, dataset fingerprint, seed, backend and ``--set``.
Restored records (role ``recorded``) stand beside them and are never taken for this store's own.
"""

import contextlib
import functools
import hashlib
import json
import operator
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunStatus, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT

from resnet import (
    Interrupted,
    checkpoints,
    config,
    events,
    figures,
    leases,
    progression,
    records,
    registry,
)
from resnet.config import Job
from resnet.data import Dataset
from resnet.leases import ABANDONED, Lease, Lost
from resnet.numerics import numerics
from resnet.store import FAILURES, ROOT, Store, data_of
from resnet.training import Outcome

RESUMED = "resumed_elsewhere"
_DRAWING = threading.Lock()  # lanes are threads, and Matplotlib is not safe for them
DESCRIPTION, PARENT, CONTEXT = "mlflow.note.content", "mlflow.parentRunId", "mlflow.data.context"


def identity(job: Job, dataset: Dataset) -> dict[str, str]:
    """The tags by which a child run is found again."""
    return {
        "config_hash": job.experiment.hash(),
        "dataset_fingerprint": dataset.fingerprint,
        "seed": str(job.seed),
        "backend": environment()["backend"],
        "modified": job.modified,
    }


def sharing(job: Job, dataset: Dataset) -> dict[str, str]:
    """The tags of the runs that go on from the same states."""
    same = identity(job, dataset) | {"trajectory": job.experiment.trajectory()}
    return {key: value for key, value in same.items() if key not in ("config_hash", "modified")}


@functools.cache
def environment() -> dict[str, str]:
    """Tags that say what produced a run: code, claims, versions, hardware."""
    tags = numerics() | {
        "host": socket.gethostname(),
        "version.mlflow": metadata.version("mlflow"),
        # a reader sees that the bounds were there before the result
        "claims_sha256": hashlib.sha256(config.CLAIMS.read_bytes()).hexdigest(),
    }
    return tags | _version()


def _version() -> dict[str, str]:
    """Tags that say which commit the code is of, unknown outside a checkout of this project."""
    top, commit, changes = (
        _git("rev-parse", "--show-toplevel"),
        _git("rev-parse", "HEAD"),
        _git("status", "--porcelain"),
    )
    # of a copy in another project's checkout git tells that one's
    if not (top and commit and Path(top).resolve() == ROOT):
        return {"git_commit": "unknown", "git_dirty": "unknown"}
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"git_commit": commit, MLFLOW_GIT_COMMIT: commit, "git_dirty": dirty}


def _git(*arguments: str) -> str | None:
    """What git says of this project's folder; None if nothing."""
    # GIT_DIR and others name another repository than the folder's: a hook has them set
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
    try:
        return subprocess.run(  # noqa: S603 - fixed arguments
            # without a lock, on which the user's own git would fail
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments],  # noqa: S607 - the user's
            capture_output=True,
            check=True,
            env=environment,
            timeout=10,
            encoding=sys.getfilesystemencoding(),
            errors=sys.getfilesystemencodeerrors(),
        ).stdout.removesuffix("\n")
    except (OSError, subprocess.SubprocessError):
        return None


@contextlib.contextmanager
def parent_run(
    store: Store, name: str, tags: dict[str, str], patiently: Callable = operator.call
) -> Iterator[str]:
    """The invocation's own run; yields its id and ends it, whatever happens.

    Parents whose process is gone (a ``kill -9``) are ended too, so that none stays RUNNING: this
    machine's at once, another's if its lease is still the same in the end.

    Args:
        store: where.
        name: shown in the UI.
        tags: what the invocation is about.
        patiently: from :func:`resnet.store.patient`.
    """
    began, process = time.monotonic(), psutil.Process()
    elsewhere = {}
    for run in patiently(store.search, role="ladder", status="RUNNING"):
        if not store.shared or run.data.tags.get("owner") == leases.machine():
            if not _alive(run.data.tags):
                patiently(_end, store, run.info.run_id, RunStatus.KILLED)
        else:
            elsewhere[run.info.run_id] = run.data.tags.get(leases.TAG)
    tags = tags | {
        "role": "ladder",
        "owner": leases.machine(),
        "pid": str(process.pid),
        "pid_started": str(process.create_time()),
    }
    lease = Lease(store, Path(str(process.pid)))
    run_id = _create(store, patiently, name, tags | environment(), lease)
    with _ending(store, run_id, patiently), lease.kept(run_id, lambda: True):
        yield run_id
    if elsewhere and time.monotonic() - began > leases.SECONDS:
        for run in patiently(store.search, role="ladder", status="RUNNING"):
            if run.data.tags.get(leases.TAG) == elsewhere.get(run.info.run_id, ""):
                patiently(_end, store, run.info.run_id, RunStatus.KILLED)


def _alive(tags: dict[str, str]) -> bool:
    try:
        return str(psutil.Process(int(tags["pid"])).create_time()) == tags["pid_started"]
    except (psutil.Error, KeyError, ValueError):
        return False


def _create(
    store: Store, patiently: Callable, name: str, tags: dict[str, str], lease: Lease
) -> str:
    """Makes a run with a lease on it, exactly one, and returns its id."""
    # MLflow takes the commit of any checkout around the script for the script's
    tags |= {leases.TAG: lease.tag("claimed")}
    tags = resolve_tags(tags, ignore=[GitRunContext])  # type: ignore[list-item] # its class
    run = patiently(store.client.create_run, store.experiment_id, run_name=name, tags=tags)
    if store.shared:  # one that went away may have made another before it said so
        same = f"tags.{leases.TAG} LIKE '%{lease.token}%'"
        for twin in patiently(store.client.search_runs, [store.experiment_id], same):
            if twin.info.run_id != run.info.run_id:
                patiently(store.client.delete_run, twin.info.run_id)
    return run.info.run_id


def _end(store: Store, run_id: str, status: int = RunStatus.FINISHED) -> None:
    store.client.set_terminated(run_id, RunStatus.to_string(status))


@contextlib.contextmanager
def _ending(store: Store, run_id: str, patiently: Callable) -> Iterator[None]:
    """Ends a run with the status that tells what happened."""
    try:
        yield
    except Lost:
        raise  # it is another process's now
    except BaseException as error:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        with contextlib.suppress(*FAILURES):  # what happened matters more than its record
            _end(store, run_id, RunStatus.KILLED if stopped else RunStatus.FAILED)
        raise
    patiently(_end, store, run_id)


class ChildRun:
    """One (rung, seed) in MLflow: begun or taken up again, fed, finished.

    Args:
        store: where.
        run_id: from :func:`take`.
        lease: on it.
        call: calls its first argument with the others, once the lease is confirmed.
    """

    def __init__(self, store: Store, run_id: str, lease: Lease, call: Callable):
        self.lease = lease
        self.client = store.client
        self.run_id = run_id
        self._call = call
        self._logged = {
            key: {metric.step for metric in call(self.client.get_metric_history, run_id, key)}
            for key in records.CURVES
        }

    def log_history(self, history: events.History) -> None:
        """Logs the epochs that MLflow does not have yet; the step is the epoch, from 1."""
        metrics = [
            Metric(key, record[key], int(record["time"] * 1000), int(record["epoch"]))
            for record in history
            for key in records.CURVES
            if record["epoch"] not in self._logged[key]
        ]
        for start in range(0, len(metrics), 1000):  # MLflow's limit a call
            self._call(self.client.log_batch, self.run_id, metrics[start : start + 1000])
        for metric in metrics:
            self._logged[metric.key].add(metric.step)

    def log_differences(self, differs: dict[str, tuple[str, str]]) -> None:
        """Tags a run that went on where its bits depend on something else than before."""
        tags = self._call(self.client.get_run, self.run_id).data.tags
        told = dict.fromkeys(tags.get(RESUMED, "").split("; "))  # each stop sees the earlier ones
        told |= dict.fromkeys(f"{key}: {then} -> {now}" for key, (then, now) in differs.items())
        text = "; ".join(filter(None, told))[:5000]
        self._call(self.client.set_tag, self.run_id, RESUMED, text)

    def log_outcome(self, job: Job, dataset: Dataset, outcome: Outcome) -> None:
        """Logs artifacts, the model and the figures that readers compare."""
        self.log_history(outcome.history)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            with _DRAWING:
                save_results(
                    folder,
                    predictions(dataset.y_test, outcome.probabilities),
                    dataset.classes,
                    outcome.history,
                    job.experiment.title,
                )
                figures.mistakes(dataset, outcome.probabilities, folder / "mistakes.png")
            np.save(folder / "test_probabilities.npy", outcome.probabilities, allow_pickle=False)
            lines: list[str] = []
            outcome.network.summary(line_length=110, print_fn=lines.append)
            (folder / "model_summary.txt").write_text("\n".join(lines), encoding="utf-8")
            self._call(self.client.log_artifacts, self.run_id, temporary)
        model_id = self._call(registry.log_model, self.client, self.run_id, job, dataset, outcome)
        tested_on = (dataset.name, _digest(dataset, "testing"))
        known = self._call(self.client.get_run, self.run_id).data.metrics
        moment = int(outcome.history[-1]["time"] * 1000)
        self._call(
            self.client.log_batch,
            self.run_id,
            [
                # the Models page ranks by what is linked to a model, the tests with their images
                Metric(key, value, moment, 0, model_id, *(tested_on * key.startswith("test_")))
                for key, value in outcome.summary().items()
                if key not in known
            ],
        )

    def log_failure(self, traceback: str) -> None:
        """Keeps what a failed run's process knew of the reason, if the store takes it."""
        with contextlib.suppress(*FAILURES):
            self.client.log_text(self.run_id, traceback, "traceback.txt")


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


def save_results(
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
    cells = confusion.rename(index=records.guarded, columns=records.guarded)
    cells.to_csv(folder / "confusion_matrix.csv")
    figures.save(figures.curves(history, title), folder / "curves.png")
    figures.save(figures.confusion(confusion), folder / "confusion_matrix.png")


def take(
    store: Store,
    job: Job,
    dataset: Dataset,
    tags: dict[str, str],
    parent_id: str,
    lease: Lease,
    patiently: Callable,
    *,
    fresh: bool,
    folder: str,
) -> Run | None:
    """Finds the run of an identity, wherever it was begun, or makes it, and takes its lease.

    The caller holds the identity's lock on this machine.

    Args:
        store: where.
        job: what is to be trained.
        dataset: on which images.
        tags: further tags, ``profile`` and ``modified`` among them.
        parent_id: the invocation's run.
        lease: what it is taken with.
        patiently: from :func:`resnet.store.patient`.
        fresh: give up what earlier invocations began or finished.
        folder: of the trajectory's states. Without any a run that has epochs is given up, lest its
            curves go on with another training's.

    Returns:
        The run to train; the FINISHED one if that is done; None if another process is at it.
    """
    of = identity(job, dataset)
    begun = patiently(unfinished, store, of)
    alive = [lease.alive(run) for run in begun]  # each is watched
    if any(alive):
        return None

    def earlier(run: Run) -> bool:
        return fresh and run.data.tags.get(PARENT) != parent_id

    going_on, resumable = None, checkpoints.visible(folder)
    for run in begun:
        if going_on or earlier(run) or not (resumable or "loss" not in run.data.metrics):
            patiently(_abandon, store, run)
        else:
            going_on = run.info.run_id
    if not going_on:
        for run in patiently(store.search, **of, role="rung", status="FINISHED"):
            if not earlier(run):
                return run
        same = sharing(job, dataset)
        if fresh and not patiently(store.search, **same, **{PARENT: parent_id}):
            others = patiently(unfinished, store, same)
            if any(lease.alive(run) for run in others):
                return None
            for run in others:  # it would go on without its states
                patiently(_abandon, store, run)
            checkpoints.remove(folder)
    tags = (
        of
        | environment()
        | tags
        | {
            "role": "rung",
            "rung": job.experiment.name,
            "title": job.experiment.title,
            "trajectory": job.experiment.trajectory(),
            "dataset": dataset.name,
            PARENT: parent_id,
            DESCRIPTION: describe(job.experiment, dataset.name, dataset.fingerprint),
        }
    )
    tags |= standing(tags)
    if going_on:
        tags.pop("claims_sha256")  # the bounds that there were when it began
        run_id = going_on
        tags[leases.TAG] = lease.tag("claimed")
        patiently(store.client.log_batch, run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        patiently(store.client.update_run, run_id, "RUNNING")
    else:
        name = f"{job.experiment.name} · seed {job.seed}"
        run_id = _create(store, patiently, name, tags, lease)
    if store.shared:
        time.sleep(leases.SETTLE)
        if not patiently(lambda: lease.ours(run_id, unfinished(store, of))):
            if not going_on:
                patiently(store.client.delete_run, run_id)
            return None
        patiently(store.client.set_tag, run_id, leases.TAG, lease.tag("held"))
    return patiently(store.client.get_run, run_id)


@contextlib.contextmanager
def child_run(
    store: Store, run: Run, job: Job, dataset: Dataset, lease: Lease, patiently: Callable
) -> Iterator[ChildRun]:
    """Opens a run that was taken; it is ended FINISHED, FAILED or KILLED.

    Args:
        store: where.
        run: from :func:`take`.
        job: its experiment's values become the run's params.
        dataset: logged with MLflow's own dataset facility.
        lease: kept until the end; once it is lost, ``Lost`` comes out of every call.
        patiently: from :func:`resnet.store.patient`.
    """
    run_id, of = run.info.run_id, identity(job, dataset)

    def call(function: Callable, *arguments: Any) -> Any:
        def confirmed() -> Any:
            lease.confirm()
            return function(*arguments)

        return patiently(confirmed)

    def still_ours() -> bool:
        return lease.ours(run_id, unfinished(store, of))

    with _ending(store, run_id, patiently), lease.kept(run_id, still_ours):
        # again when it goes on: its name may be another by now
        call(store.client.log_text, run_id, job.experiment.to_yaml(), "experiment.yaml")
        if not data_of(run):
            params = [Param(*item) for item in settings(job.experiment).items()]
            call(lambda: store.client.log_batch(run_id, params=params))
            call(store.client.log_inputs, run_id, inputs_of(dataset))
        monitor = SystemMetricsMonitor(run_id, resume_logging=True)
        monitor.start()
        try:
            yield ChildRun(store, run_id, lease, call)
        finally:
            monitor.finish()


def _digest(dataset: Dataset, context: str) -> str:
    # of one name and digest MLflow would keep the first alone
    return f"{dataset.fingerprint[:24]}-{context}"


def inputs_of(dataset: Dataset) -> list[DatasetInput]:
    """A dataset as MLflow keeps it with a run: its training and its test images."""
    return [
        DatasetInput(
            from_numpy(
                x,
                source=CodeDatasetSource({"source": dataset.source}),
                targets=y,
                name=dataset.name,
                digest=_digest(dataset, context),
            )._to_mlflow_entity(),
            [InputTag(CONTEXT, context)],
        )
        for context, x, y in (
            ("training", dataset.x_train, dataset.y_train),
            ("testing", dataset.x_test, dataset.y_test),
        )
    ]


SERIES, PART_OF = "series", "part_of"
"""The tags by which the UI's views group runs, and tell parts of a step from the ladder."""


def standing(tags: dict[str, str], *further: str) -> dict[str, str]:
    """Where the UI's views put a run.

    Args:
        tags: the run's, with all of ``resnet.records.TAGS`` but the last.
        further: what else keeps it apart.

    Returns:
        What may be averaged: one rung of one set, and of one configuration and one dataset
        however they are called (``02_augmentation · digits · quick · 1a2b3c4d``); and of what
        ``--ablate`` makes the rung that it is a part of.
    """
    rung, part, _ = tags["rung"].partition("~")
    name = f"{tags['rung']} · {progression.about(tags, *further)} · {records.identity(tags)}"
    return {SERIES: name} | ({PART_OF: rung} if part else {})


def settings(experiment: config.Experiment) -> dict[str, str]:
    """An experiment's values as params, each in JSON."""
    return {key: json.dumps(value) for key, value in experiment.flat().items()}


def describe(experiment: config.Experiment, dataset: str, fingerprint: str) -> str:
    """A run's description in Markdown: what it is of, and what was assumed for it."""
    lines = [f"**{experiment.title}** on {dataset} ({fingerprint[:12]})"]
    lines += [f"- assumed `{key}`: {reason}" for key, reason in experiment.assumed.items()]
    return "\n".join(lines)


def unfinished(store: Store, of: dict[str, str]) -> list[Run]:
    """Runs of an identity that were begun, neither finished nor given up, newest first."""
    return [
        run
        for run in store.search(**of, role="rung")
        if run.info.status != "FINISHED"
        # before there were leases, an owner's name was taken from a run that was given up
        and run.data.tags.get(leases.TAG, run.data.tags.get("owner")) not in (None, ABANDONED)
    ]


def _abandon(store: Store, run: Run) -> None:
    store.client.set_tag(run.info.run_id, leases.TAG, ABANDONED)
    if run.info.status == "RUNNING":
        _end(store, run.info.run_id, RunStatus.KILLED)
