"""Logs networks as MLflow models, and registers one model version per rung."""

import re
import tempfile
from importlib import metadata
from statistics import fmean

import mlflow
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from resnet.data import Dataset
from resnet.network import keras, served
from resnet.store import Store
from resnet.study import Job, rung_number, short
from resnet.training import Outcome


def log_model(store: Store, run_id: str, job: Job, dataset: Dataset, outcome: Outcome) -> str:
    """Logs a run's network as a model that takes raw images. Returns the model's id.

    A complete model is not logged again. An incomplete model from a killed process is replaced.
    """
    client = store.client
    for model in _models_of(store, run_id):
        if model.status == LoggedModelStatus.READY:
            return model.model_id
        client.delete_logged_model(model.model_id)
    model = client.create_logged_model(
        store.experiment_id,
        name=_plain(f"{job.experiment.name}-seed{job.seed}"),
        source_run_id=run_id,
        params=client.get_run(run_id).data.params,
        tags={"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint},
    )
    # mlflow.keras.log_model needs the fluent API, and cannot continue a killed process's work
    backend = keras.backend.backend()
    with tempfile.TemporaryDirectory() as temporary:
        folder = f"{temporary}/model"
        mlflow.keras.save_model(
            served(outcome.network, job.experiment.data.pixel_scale),
            folder,
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                model_id=model.model_id,
                run_id=run_id,
            ),
            signature=infer_signature(dataset.x_test[:1], outcome.probabilities[:1]),
            # without this list, another process would load the model to list its requirements
            pip_requirements=[f"{p}=={metadata.version(p)}" for p in ("keras", "numpy", backend)],
        )
        client.log_model_artifacts(model.model_id, folder)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, outcome.tested_epoch)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_id


def _models_of(store: Store, run_id: str) -> list:
    return store.client.search_logged_models([store.experiment_id], f"source_run_id = '{run_id}'")


def _plain(name: str) -> str:
    return re.sub(r"[^\w-]", "_", name)


def register(store: Store, dataset: Dataset, profile: str) -> None:
    """Registers for each rung the model of the run whose accuracy is nearest to the rung's mean.

    The alias ``rung-5`` names the model of rung 5. The alias ``best`` names the model of the rung
    with the highest mean. Only validation accuracies count, because test images must not affect the
    choice. Runs with ``--set`` and runs of a rung's older configurations are left out.
    """
    same = {"profile": profile, "dataset_fingerprint": dataset.fingerprint}
    newest: dict[str, dict[str, Run]] = {}  # runs by rung and seed
    for run in store.search(role="rung", status="FINISHED", **same):
        tags = run.data.tags
        if tags["modified"] or "~" in tags["rung"]:
            continue
        seeds = newest.setdefault(tags["rung"], {})
        hashes = {other.data.tags["config_hash"] for other in seeds.values()}
        if hashes <= {tags["config_hash"]}:
            seeds.setdefault(tags["seed"], run)
    usual = (store.study.dataset, "full")
    special = [part for part in (dataset.name, profile) if part not in usual]
    name = _plain("-".join([store.study.name, *special]))  # such as resnet-ladder-digits-quick
    means, versions = {}, {}
    for rung, seeds in sorted(newest.items()):
        validated = {seed: run.data.metrics["best_val_accuracy"] for seed, run in seeds.items()}
        means[rung] = fmean(validated.values())
        # the best run may be best only by chance, so it does not represent the rung
        nearest = min(seeds, key=lambda seed: (abs(validated[seed] - means[rung]), seed))
        if version := _version(store, name, seeds[nearest].info.run_id):
            versions[rung] = version
    aliases = {f"rung-{_plain(short(rung))}": version for rung, version in versions.items()}
    if rungs := [rung for rung in versions if rung_number(rung) is not None]:
        aliases["best"] = versions[max(rungs, key=means.__getitem__)]
    for alias, version in aliases.items():
        store.client.set_registered_model_alias(name, alias, version)


def _version(store: Store, name: str, run_id: str) -> str | None:
    """Finds or makes, in the registered model ``name``, the version that holds a run's network."""
    for version in store.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return version.version
    if not (logged := _models_of(store, run_id)):  # somebody deleted the model
        return None
    try:
        store.client.create_registered_model(
            name,
            description="Networks that map raw images (uint8, 0..255) to probabilities. `rung-5` "
            "is the network of rung 5 whose validation accuracy is nearest to the rung's mean over "
            "seeds. `best` is the network chosen in this way for the rung with the highest mean.",
        )
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    model_id = logged[0].model_id
    source = f"models:/{model_id}"
    return store.client.create_model_version(name, source, run_id, model_id=model_id).version
