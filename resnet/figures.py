"""Figures a run leaves: the study's two-panel curves and the confusion matrix."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from resnet.data import Dataset


def curves(history: list[dict[str, float]], title: str) -> Figure:
    """Training and validation accuracy and loss against the epoch, as the study plots them.

    Args:
        history: one record an epoch; see :class:`resnet.training.Outcome`.
        title: of the figure.

    Returns:
        The figure; drops of the learning rate are dashed lines.
    """
    frame = pd.DataFrame(history).set_index("epoch")
    figure = Figure(figsize=(10, 4), layout="constrained")
    drops = frame.index[frame["learning_rate"].diff() < 0]
    for axes, key in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axes.plot(frame.index, frame[key], marker=".", label="training")
        axes.plot(frame.index, frame[f"val_{key}"], marker=".", label="validation")
        for i, epoch in enumerate(drops):
            label = "learning rate drops" if i == 0 else None
            axes.axvline(epoch - 0.5, color="grey", linestyle="--", linewidth=1, label=label)
        axes.set(xlabel="epoch", ylabel=key)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title, parse_math=False)
    return figure


def confusion(table: pd.DataFrame) -> Figure:
    """The confusion matrix as a heat map.

    Args:
        table: counts; rows are true classes, columns predicted ones.

    Returns:
        The figure, each row shaded by its own share.
    """
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(table)):
        for column in range(len(table.columns)):
            colour = "white" if share.iat[row, column] > 0.5 else "black"
            axes.text(column, row, table.iat[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(
        range(len(table.columns)), table.columns, rotation=45, ha="right", parse_math=False
    )
    axes.set_yticks(range(len(table)), table.index, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def mistakes(dataset: Dataset, probabilities: np.ndarray, count: int = 24) -> Figure:
    """The test images the network was most sure about and wrong.

    Args:
        dataset: whose test set was predicted.
        probabilities: (n, classes).
        count: how many to show at most.

    Returns:
        The figure, surest first; each picture with its true and its predicted class.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != dataset.y_test)
    surest = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:count]
    rows = max(1, -(-len(surest) // 8))
    figure = Figure(figsize=(10, 1.9 * rows), layout="constrained")
    for axes in figure.subplots(rows, 8).flat:
        axes.axis("off")
    for axes, i in zip(figure.axes, surest, strict=False):
        axes.imshow(dataset.x_test[i])
        axes.set_title(
            f"{dataset.classes[dataset.y_test[i]]}\nas {dataset.classes[predicted[i]]} "
            f"{probabilities[i, predicted[i]]:.0%}",
            fontsize=8,
        )
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure; the suffix chooses the format."""
    figure.savefig(path, dpi=120)
