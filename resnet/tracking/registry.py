"""Models in MLflow: logged with what they were tested on, registered under names that last."""

import re
import tempfile
from importlib import metadata

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from resnet.data import Dataset
from resnet.network import keras, served
from resnet.store import Store
from resnet.study import KEYS, Job, Study, rung_number, short
from resnet.training import Outcome


def log_model(store: Store, run_id: str, job: Job, dataset: Dataset, outcome: Outcome) -> str:
    """Logs a run's network as a model that answers raw images.

    Done again, it changes nothing; a model that a killed process left half written is replaced.

    Args:
        store: where the run is.
        run_id: of the run.
        job: names the model: ``02_augmentation-seed0``.
        dataset: which it was tested on.
        outcome: with the network.

    Returns:
        The model's id.
    """
    client = store.client
    run = client.get_run(run_id)
    # MLflow shows a model before its files are there; whether they are, its status tells
    for model in _models_of(store, run_id):
        if model.status == LoggedModelStatus.READY:
            return model.model_id
        client.delete_logged_model(model.model_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name=_plain(f"{job.experiment.name}-seed{job.seed}"),
        source_run_id=run_id,
        params=run.data.params,
        tags={"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint},
    )
    # mlflow.keras.log_model is of the fluent API too, and could not go on where it was killed
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
            # stated, because finding them out would load the model in another process
            pip_requirements=[f"{p}=={metadata.version(p)}" for p in ("keras", "numpy", backend)],
        )
        client.log_model_artifacts(model.model_id, folder)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, outcome.tested_epoch)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_id


def _models_of(store: Store, run_id: str) -> list:
    of_run = f"source_run_id = '{run_id}'"
    return list(store.client.search_logged_models([store.experiment_id], of_run))


def _plain(name: str) -> str:
    """Without the characters that MLflow keeps for its addresses."""
    return re.sub(r"[^\w-]", "_", name)


def registered_name(study: Study, dataset: str, profile: str) -> str:
    """Names a study's models; of other images or another profile by what is different.

    Args:
        study: names it.
        dataset: its name.
        profile: ``full``, ``quick``, ...
    """
    special = [part for part in (dataset, profile) if part not in (study.dataset, "full")]
    return _plain("-".join([study.name, *special]))


def register(store: Store, dataset: Dataset, profile: str) -> None:
    """Registers the run of each rung nearest its seeds' mean, as ``models:/NAME@rung-5``.

    ``best`` is an alias of the rung with the highest mean. Both go by validation accuracy: the
    test set is there to test, not to choose. Only this store's own runs without ``--set`` count,
    of each rung those of its newest configuration.

    Args:
        store: where.
        dataset: the runs' images.
        profile: the runs' profile.
    """
    frame = pd.DataFrame(
        [
            {
                "rung": run.data.tags["rung"],
                "configuration": run.data.tags["config_hash"],
                "seed": run.data.tags["seed"],
                "run": run.info.run_id,
                "accuracy": run.data.metrics["best_val_accuracy"],
            }
            for run in store.search(
                role="rung",
                status="FINISHED",
                profile=profile,
                dataset_fingerprint=dataset.fingerprint,
            )
            # somebody may have deleted a tag in MLflow's UI
            if run.data.tags.keys() >= {*KEYS} and "best_val_accuracy" in run.data.metrics
            if not run.data.tags["modified"] and "~" not in run.data.tags["rung"]
        ]
    )
    if frame.empty:
        return
    # The run nearest the mean and not the best one: the best of several seeds is luck that the
    # next download would not have.
    by_rung = frame.groupby("rung")
    newest = frame["configuration"] == by_rung["configuration"].transform("first")
    frame = frame[newest].drop_duplicates(["rung", "seed"])
    frame["mean"] = frame.groupby("rung")["accuracy"].transform("mean")
    frame["distance"] = (frame["accuracy"] - frame["mean"]).abs()
    chosen = frame.sort_values(["distance", "seed"]).drop_duplicates("rung")

    name = registered_name(store.study, dataset.name, profile)
    versions = {
        row.rung: version
        for row in chosen.sort_values("rung").itertuples()
        if (version := _version(store, name, row.run))
    }
    aliases = {
        f"rung-{_plain(short(rung))}": version  # v2 alone is no alias
        for rung, version in versions.items()
    }
    rungs = chosen[chosen["rung"].isin(versions) & chosen["rung"].map(rung_number).notna()]
    if len(rungs):
        aliases["best"] = versions[rungs.loc[rungs["mean"].idxmax(), "rung"]]
    for alias, version in aliases.items():
        store.client.set_registered_model_alias(name, alias, version)


def _version(store: Store, name: str, run_id: str) -> str | None:
    """The version that a run's model has under a name; made if there is none. None: no model."""
    for version in store.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return version.version
    logged = _models_of(store, run_id)
    if not logged:  # somebody deleted it
        return None
    try:
        store.client.create_registered_model(
            name,
            description="Networks from raw images (uint8, 0..255) to probabilities. `rung-5` is of "
            "the run nearest the mean of its seeds, `best` of the best rung, both by validation "
            "accuracy; the test set has chosen nothing.",
        )
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    model_id = logged[0].model_id
    return store.client.create_model_version(
        name, f"models:/{model_id}", run_id, model_id=model_id
    ).version
