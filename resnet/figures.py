"""Figures a run leaves: the study's two-panel curves and the confusion matrix."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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


def mistakes(dataset: Dataset, probabilities: np.ndarray, path: Path) -> None:
    """Writes the test images that the network was surest about and wrong, arranged by class.

    A PNG in the images' own size: rows of cells are true classes, columns predicted ones, in each
    cell the four surest of its mistakes, two by two; black where there are no more. Its text chunk
    ``cells`` says how many classes there are.

    Args:
        dataset: whose test set was predicted.
        probabilities: (n, classes).
        path: the file.
    """
    (n, height, width, _), classes = dataset.x_test.shape, len(dataset.classes)
    predicted = probabilities.argmax(axis=1)
    sheet = np.zeros((2 * classes * height, 2 * classes * width, 3), "uint8")
    taken: Counter = Counter()
    for i in np.argsort(-probabilities[np.arange(n), predicted], kind="stable"):
        cell = int(dataset.y_test[i]), int(predicted[i])
        if cell[0] != cell[1] and taken[cell] < 4:
            row, column = (2 * at + half for at, half in zip(cell, divmod(taken[cell], 2)))
            place = (slice(at * size, (at + 1) * size) for at, size in ((row, height), (column, width)))
            sheet[tuple(place)] = dataset.x_test[i]
            taken[cell] += 1
    told = PngInfo()
    told.add_text("cells", str(classes))
    Image.fromarray(sheet).save(path, pnginfo=told)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure; the suffix chooses the format."""
    figure.savefig(path, dpi=120)
