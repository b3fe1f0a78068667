"""Makes records from finished MLflow runs."""

import csv
import json
import tempfile
from operator import attrgetter
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from resnet import UserError
from resnet.host.messages import mask
from resnet.records.artifacts import CONTEXT, CURVES, unguarded
from resnet.records.json_format import DataInput, Predictions, Record
from resnet.store import Store, data_of, download
from resnet.study import Key, explain, from_yaml, signatures

_OF_THIS_STORE = ("role", "owner", "lease", "host", "series", "part_of")
"""Tags that records leave out, because these tags have no meaning outside the run's store."""


def recordable(store: Store) -> list[Run]:
    """Returns the finished runs with the full profile and no overrides. The newest comes first."""
    return [
        run
        for run in store.search(role="rung", status="FINISHED")
        if run.data.tags.get("profile", "full") == "full" and not run.data.tags.get("modified")
    ]


def key_of(run: Run) -> Key:
    """Returns the key of a finished run; raises UserError if one of the run's tags was deleted."""
    try:
        return Key.read(run.data.tags)
    except KeyError as gone:
        line = f"run {run.info.run_id} ({run.info.run_name}): somebody deleted the tag {gone}"
        raise UserError(line) from None


def to_record(store: Store, run: Run) -> Record:
    """Makes a finished run's record. Raises UserError for missing or inconsistent artifacts."""
    source = f"run {run.info.run_id} ({run.info.run_name})"
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _record(store, run, folder)
    except ValidationError as error:
        raise explain(source, error, Record) from None
    except (MlflowException, OSError, ValueError, StopIteration) as error:
        raise UserError(f"{source}: cannot be recorded: {mask(error)[:300]}") from None


def _record(store: Store, run: Run, folder: str) -> Record:
    def artifact(name: str) -> Path:
        return download(store.uri, run, name, folder)

    point = attrgetter("step", "timestamp", "value")
    histories = {
        key: sorted(map(point, store.client.get_metric_history(run.info.run_id, key)))
        for key in CURVES
    }
    resolved = artifact("experiment.yaml").read_text(encoding="utf-8")
    own = from_yaml(resolved, "experiment.yaml").model.code_sha256
    with artifact("confusion_matrix.csv").open(encoding="utf-8-sig", newline="") as file:
        classes = [*map(unguarded, next(csv.reader(file))[1:])]
    return Record(
        run_id=run.info.run_id,
        run_name=run.info.run_name,
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        tags=_without(run.data.tags, "mlflow.", _OF_THIS_STORE),
        inputs=_inputs(run),
        classes=classes,
        experiment=resolved.splitlines(),
        networks=artifact(signatures.OWN).read_text("utf-8").split("\n") if own else None,
        final=_without(run.data.metrics, "system/", CURVES),
        time=[moment for _, moment, _ in histories["loss"]],
        curves={key: [value for *_, value in points] for key, points in histories.items()},
        predictions=Predictions.of(pd.read_csv(artifact("test_predictions.csv"))),
    )


def _without(values: dict[str, Any], prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if not (k.startswith(prefix) or k in names)}


def _inputs(run: Run) -> list[DataInput]:
    found = []
    for logged in data_of(run):
        source = json.loads(logged.dataset.source)
        if path := source.get("tags", {}).get("source"):
            # the record keeps only the path's last part, because the digest identifies the data
            source["tags"]["source"] = PurePath(path).name
        fields = logged.dataset.to_dictionary() | {"source": json.dumps(source)}
        context = next(tag.value for tag in logged.tags if tag.key == CONTEXT)
        found.append(DataInput(**fields, context=context))
    return sorted(found, key=lambda data: (data.context, data.digest))
