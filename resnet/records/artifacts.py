"""Makes the params, description and artifacts that MLflow stores for a finished run."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resnet.records import figures
from resnet.study import Experiment

CURVES = (
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "images_per_second",
    "epoch_seconds",
)
"""Metrics with one value per epoch."""
DESCRIPTION, PARENT, CONTEXT = "mlflow.note.content", "mlflow.parentRunId", "mlflow.data.context"
# A spreadsheet may evaluate a cell as a formula if it starts with one of these characters.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def guarded(value: Any) -> Any:
    """Adds a quote before a CSV cell that a spreadsheet may read as a formula, as OWASP advises."""
    return f"'{value}" if isinstance(value, str) and value.startswith((*FORMULA, "'")) else value


def unguarded(text: str) -> str:
    """Removes the quote that :func:`guarded` adds."""
    return text[1:] if text[:1] == "'" and text[1:].startswith((*FORMULA, "'")) else text


def settings(experiment: Experiment) -> dict[str, str]:
    """Returns an experiment's settings as MLflow params, with values in JSON."""
    return {key: json.dumps(value) for key, value in experiment.flat().items()}


def describe(experiment: Experiment, dataset: str, fingerprint: str) -> str:
    """Describes a run's experiment, dataset and assumptions in Markdown."""
    lines = [f"**{experiment.title}** on {dataset} ({fingerprint[:12]})"]
    lines += [f"- assumed `{key}`: {reason}" for key, reason in experiment.assumed.items()]
    return "\n".join(lines)


def predictions(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Tabulates ``labels`` (n,) and ``probabilities`` (n, classes), with one row per image.

    The columns ``label`` and ``predicted`` are class indices. ``truth_probability`` is the
    probability of the true class, rounded to four decimals. NaN becomes 0.
    """
    of_truth = np.nan_to_num(probabilities[np.arange(len(labels)), labels])
    classes = {"label": labels, "predicted": probabilities.argmax(axis=1)}
    return pd.DataFrame(classes | {"truth_probability": of_truth.astype("float64").round(4)})


def diverged(losses: Iterable[float]) -> int:
    """Returns the first epoch (from 1) whose loss is not finite, or 0 if all losses are finite."""
    return next((epoch for epoch, loss in enumerate(losses, 1) if not math.isfinite(loss)), 0)


def save_results(
    folder: Path,
    predicted: pd.DataFrame,
    classes: Sequence[str],
    history: list[dict[str, float]],
    title: str,
) -> None:
    """Writes a finished run's predictions, confusion matrix and figures into a folder."""
    predicted.to_csv(folder / "test_predictions.csv", index=False)
    confusion = pd.crosstab(
        pd.Categorical.from_codes(predicted["label"], classes),
        pd.Categorical.from_codes(predicted["predicted"], classes),
        rownames=["true"],
        colnames=["predicted"],
        dropna=False,
    )
    cells = confusion.rename(index=guarded, columns=guarded)
    cells.to_csv(folder / "confusion_matrix.csv", encoding="utf-8-sig")
    figures.save(figures.curves(history, title), folder / "curves.png")
    figures.save(figures.confusion(confusion), folder / "confusion_matrix.png")
