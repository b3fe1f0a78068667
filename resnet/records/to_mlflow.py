"""Imports records into a separate MLflow experiment, so that MLflow's UI can show them."""

import tempfile
from pathlib import Path

import mlflow
from mlflow.entities import DatasetInput, InputTag, Metric, Param

from resnet.records.artifacts import CONTEXT, DESCRIPTION, describe, save_results, settings
from resnet.records.json_format import Record
from resnet.store import Store, connect
from resnet.study import Study, signatures

SHA256 = "record_sha256"
"""Tag that holds the SHA-256 of an imported run's record."""


def connect_recorded(uri: str | None, study: Study) -> Store:
    """Opens the MLflow experiment (such as ``resnet-ladder-recorded``) for a study's records."""
    return connect(uri, study, experiment=f"{study.name}-recorded")


def restore(store: Store, found: dict[Path, Record]) -> int:
    """Imports the records that the store lacks, and returns the number of imports.

    Imported runs whose records are not in ``found``, and incomplete imports, are removed first.
    """
    missing = {record.sha256: path for path, record in found.items()}
    for run in store.search():
        finished, sha256 = run.info.status == "FINISHED", run.data.tags.get(SHA256)
        if sha256 and not (finished and missing.pop(sha256, None)):
            store.client.delete_run(run.info.run_id)
    for path in missing.values():
        _import(store, found[path])
    return len(missing)


def _import(store: Store, record: Record) -> None:
    client, experiment = store.client, record.resolved
    about = describe(experiment, record.tags["dataset"], record.tags["dataset_fingerprint"])
    run_id = client.create_run(
        store.experiment_id,
        start_time=record.start_time,
        run_name=record.run_name,
        tags=record.tags | record.key.series() | {DESCRIPTION: about, SHA256: record.sha256},
    ).info.run_id
    client.log_batch(run_id, params=[Param(*item) for item in settings(experiment).items()])
    points = [
        Metric(key, value, moment, epoch)
        for key, values in record.curves.items()
        for epoch, (moment, value) in enumerate(zip(record.time, values, strict=True), 1)
    ] + [Metric(key, value, record.time[-1], 0) for key, value in record.final.items()]
    client.log_batch(run_id, points)
    inputs = [
        DatasetInput(
            mlflow.entities.Dataset(**data.model_dump(exclude={"context"}, by_alias=True)),
            [InputTag(CONTEXT, data.context)],
        )
        for data in record.inputs
    ]
    client.log_inputs(run_id, inputs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "experiment.yaml").write_text("\n".join([*record.experiment, ""]), "utf-8")
        if record.networks:
            (folder / signatures.OWN).write_text("\n".join(record.networks), "utf-8")
        predicted = record.predictions.frame()
        save_results(folder, predicted, record.classes, record.history, experiment.title)
        client.log_artifacts(run_id, temporary)
    client.set_terminated(run_id, end_time=record.end_time)  # marks the run as complete
