"""Reads runs from MLflow into pandas; nothing here trains or writes."""

import mlflow
import pandas as pd

from resnet import config


def finished(uri: str, experiment_name: str = "resnet-ladder") -> pd.DataFrame:
    """Every finished run of a rung.

    Args:
        uri: MLflow tracking URI.
        experiment_name: MLflow experiment.

    Returns:
        ``mlflow.search_runs``'s frame, one row a run, newest first, with the columns ``rung``
        and ``seed`` added; if a (configuration, dataset, seed) was run again, the newest only.
    """
    mlflow.set_tracking_uri(uri)
    frame = mlflow.search_runs(
        experiment_names=[experiment_name],
        filter_string="tags.role = 'rung' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    if frame.empty:
        return frame
    frame["rung"], frame["seed"] = frame["tags.rung"], frame["tags.seed"].astype(int)
    return frame.drop_duplicates(["tags.config_hash", "tags.dataset_fingerprint", "seed"])


def published() -> dict[str, float]:
    """The study's test accuracies by experiment name, from ``experiments/claims.yaml``."""
    return config.read_yaml(config.EXPERIMENTS / "claims.yaml")["published"]
