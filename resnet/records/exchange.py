"""Between a store and ``results/``: a finished run as a record, and records as runs.

Restored records (role ``recorded``) stand beside a store's own runs and are never taken for them.
"""

import contextlib
import csv
import hashlib
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from resnet import UserError
from resnet.host.shell import mask
from resnet.records.artifacts import (
    CONTEXT,
    CURVES,
    DESCRIPTION,
    PARENT,
    describe,
    save_results,
    settings,
    unguarded,
)
from resnet.records.record import DataInput, Predictions, Record
from resnet.store import FAILURES, Store, data_of, download
from resnet.study import GROUP, KEYS, Key, explain, from_yaml, signatures

_OF_THIS_STORE = (
    "role",
    "owner",
    "lease",
    "host",
    "recorded_run_id",
    "record_sha256",
    "restored_by",
    "series",
    "part_of",
)
"""Tags that say where a run lies rather than what it is; MLflow's own are left out with them."""


def recordable(store: Store) -> list[Run]:
    """This store's own finished runs of the full profile without overrides, newest first.

    Those of which somebody deleted a tag may be among them.
    """
    runs = store.search(role="rung", status="FINISHED")
    return [run for run in runs if _full(run.data.tags)]


def _full(tags: Mapping[str, str]) -> bool:
    return tags.get("profile", "full") == "full" and not tags.get("modified")


def key_of(run: Run) -> Key:
    """Reads what a finished run is.

    Raises:
        UserError: somebody deleted one of its tags.
    """
    try:
        return Key.read(run.data.tags)
    except KeyError as gone:
        line = f"run {run.info.run_id} ({run.info.run_name}): somebody deleted its tag {gone}"
        raise UserError(line) from None


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
    source = f"run {run.info.run_id} ({run.info.run_name})"
    try:
        return _record(store, run)
    except ValidationError as error:
        raise explain(source, error, Record) from None
    except (MlflowException, OSError, ValueError, StopIteration) as error:
        raise UserError(f"{source}: cannot be recorded: {mask(error)[:300]}") from None


def _record(store: Store, run: Run) -> Record:
    run_id, tags = run.info.run_id, run.data.tags
    histories = {
        key: sorted(
            (metric.step, metric.timestamp, metric.value)
            for metric in store.client.get_metric_history(run_id, key)
        )
        for key in CURVES
    }
    with tempfile.TemporaryDirectory() as folder:

        def artifact(name: str) -> Path:
            return download(store.uri, run, name, folder)

        resolved = artifact("experiment.yaml").read_text(encoding="utf-8")
        own = from_yaml(resolved, "experiment.yaml").model.code_sha256
        with artifact("confusion_matrix.csv").open(encoding="utf-8-sig", newline="") as file:
            classes = [*map(unguarded, next(csv.reader(file))[1:])]
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
            experiment=resolved.splitlines(),
            networks=artifact(signatures.OWN).read_text("utf-8").split("\n") if own else None,
            final={
                key: value
                for key, value in run.data.metrics.items()
                if not (key in CURVES or key.startswith("system/"))
            },
            time=[moment for _, moment, _ in histories["loss"]],
            curves={key: [value for *_, value in points] for key, points in histories.items()},
            predictions=Predictions.of(pd.read_csv(artifact("test_predictions.csv"))),
        )


def _inputs(run: Run) -> list[DataInput]:
    found = []
    for logged in data_of(run):
        source = json.loads(logged.dataset.source)
        path = source.get("tags", {}).get("source")
        if path:  # this machine's folders mean nothing elsewhere; the digest says what was there
            source["tags"]["source"] = PurePath(path).name
        found.append(
            DataInput(
                **logged.dataset.to_dictionary() | {"source": json.dumps(source)},
                context=next(tag.value for tag in logged.tags if tag.key == CONTEXT),
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
    process leaves is removed by the next call from the same folder, and nothing is there twice. A
    record that has changed since it was restored, or holds another run, or whose restored files or
    tags are gone, is put there anew.

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
    # MLflow has no transaction over several calls: a run is visible from its first one on
    count = 0
    with FileLock(store.checkpoints / "restore.lock"):
        for run in store.search(role="restoring", restored_by=_place(store)):
            store.client.delete_run(run.info.run_id)
        there = _restored(store)
        for path, record in found.items():
            earlier = there.get(path.name)
            if (
                earlier
                and earlier.data.tags["record_sha256"] == record.sha256
                and store.client.list_artifacts(earlier.info.run_id)
            ):
                continue
            # the old one goes once the new one is whole, and the role that counts comes last
            with _putting(path, store):
                run_id = _put_back(store, record)
                if earlier:
                    store.client.delete_run(earlier.info.run_id)
                store.client.set_tag(run_id, "role", "recorded")
            count += 1
            tell(path)
        with _putting("the records' parent", store):
            _settle(store)
    return count


def _settle(store: Store) -> None:
    """Leaves each record once and each group one parent, whoever else restores at this time."""
    for attempt in range(5):
        try:
            _restored(store)
            return _gather(store)
        except MlflowException as error:  # of a run that another machine has just removed
            if attempt == 4 or "is deleted" not in str(error):
                raise
            time.sleep(0.5)


def _place(store: Store) -> str:
    """Whose process it is that restores: the holder of the lock in this machine's folder."""
    return f"{socket.gethostname()}:{store.checkpoints}"


def _restored(store: Store) -> dict[str, Run]:
    """The restored runs by their records' files; what is there twice or lacks a tag is removed."""
    found: dict[str, Run] = {}
    for run in sorted(store.search(role="recorded"), key=lambda run: run.info.run_id):
        tags = run.data.tags
        file = Key.read(tags).file if tags.keys() >= {*KEYS, "record_sha256"} else ""
        if not file or file in found:
            store.client.delete_run(run.info.run_id)
        else:
            found[file] = run
    return found


@contextlib.contextmanager
def _putting(what: object, store: Store) -> Iterator[None]:
    try:
        yield
    except FAILURES as error:
        reason = f"cannot be put into {mask(store.uri)}: {mask(error)[:300]}"
        raise UserError(f"{what}: {reason}") from None


def _put_back(store: Store, record: Record) -> str:
    client = store.client
    run = client.create_run(
        store.experiment_id,
        start_time=record.start_time,
        run_name=record.run_name,
        tags=record.tags
        | record.key.series("recorded")
        | {
            DESCRIPTION: describe(
                record.resolved, record.tags["dataset"], record.tags["dataset_fingerprint"]
            ),
            "role": "restoring",
            "restored_by": _place(store),
            "recorded_run_id": record.run_id,
            "record_sha256": record.sha256,
        },
    )
    run_id = run.info.run_id
    client.log_batch(run_id, params=[Param(*item) for item in settings(record.resolved).items()])
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
                mlflow.entities.Dataset(**data.model_dump(exclude={"context"}, by_alias=True)),
                [InputTag(CONTEXT, data.context)],
            )
            for data in record.inputs
        ],
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "experiment.yaml").write_text("\n".join([*record.experiment, ""]), "utf-8")
        if record.networks:
            (folder / signatures.OWN).write_text("\n".join(record.networks), "utf-8")
        save_results(
            folder,
            record.predictions.frame(),
            record.classes,
            record.history,
            record.resolved.title,
        )
        client.log_artifacts(run_id, temporary)
    client.set_terminated(run_id, end_time=record.end_time)
    return run_id


def _gather(store: Store) -> None:
    """Puts the restored runs of each group under one parent, whose ladder the report logs.

    A parent whose runs have changed is made anew, and has its role last, as they do.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in store.search(role="recorded"):
        groups.setdefault(tuple(run.data.tags[key] for key in GROUP), []).append(run)
    parents = set()
    for runs in groups.values():
        held = "".join(sorted(run.data.tags["record_sha256"] for run in runs))
        parent_id = _parent(store, runs, hashlib.sha256(held.encode()).hexdigest())
        for run in runs:
            if run.data.tags.get(PARENT) != parent_id:
                store.client.set_tag(run.info.run_id, PARENT, parent_id)
        parents.add(parent_id)
    for run in store.search(role="records"):
        if run.info.run_id not in parents:
            store.client.delete_run(run.info.run_id)


def _parent(store: Store, runs: list[Run], held: str) -> str:
    for run in store.search(role="records", records_sha256=held):
        return run.info.run_id
    client, key = store.client, Key.read(runs[0].data.tags)
    parent_id = client.create_run(
        store.experiment_id,
        start_time=min(run.info.start_time for run in runs),
        run_name=f"recorded runs · {key.group}",
        tags={name: key.tags[name] for name in GROUP}
        | {"role": "restoring", "restored_by": _place(store), "records_sha256": held},
    ).info.run_id
    inputs = {data.dataset.digest: data for run in runs for data in data_of(run)}
    client.log_inputs(parent_id, list(inputs.values()))
    client.set_terminated(parent_id, end_time=max(run.info.end_time for run in runs))
    client.set_tag(parent_id, "role", "records")
    return parent_id
