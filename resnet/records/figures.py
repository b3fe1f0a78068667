"""Draws a run's curves, confusion matrix and wrongly classified images."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resnet.data import Dataset


def curves(history: list[dict[str, float]], title: str) -> Figure:
    """Draws accuracy and loss per epoch, with a dashed line where the learning rate drops.

    ``history`` has one dictionary per epoch, as in :class:`resnet.training.Outcome`.
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
    """Draws the number of images per true class (row) and predicted class (column)."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    share = table.div(table.sum(axis=1).clip(lower=1), axis=0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(table) > 30:
        return figure  # numbers would be too small to read
    for (row, column), part in np.ndenumerate(share):
        colour = "white" if part > 0.5 else "black"
        axes.text(column, row, table.iat[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(len(table)), table.columns, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(len(table)), table.index, parse_math=False)
    return figure


def mistakes(dataset: Dataset, probabilities: np.ndarray, path: Path) -> None:
    """Writes a PNG of the test images that the network misclassified with the most confidence.

    The PNG has a row per true class and a column per predicted class. A cell has at most four
    images, two by two, in original size. The PNG's text chunk ``cells`` has the number of classes.
    Nothing is written if there are more than 30 classes, or if Pillow would warn about the number
    of pixels. ``probabilities`` has the shape (n, classes).
    """
    (n, height, width, _), classes = dataset.x_test.shape, len(dataset.classes)
    if classes > 30 or 4 * classes**2 * height * width > Image.MAX_IMAGE_PIXELS:
        return
    predicted = probabilities.argmax(axis=1)
    sheet = np.zeros((classes, 2, height, classes, 2, width, 4), "uint8")
    taken: Counter = Counter()
    for i in np.argsort(-probabilities[np.arange(n), predicted], kind="stable"):
        true, guess = int(dataset.y_test[i]), int(predicted[i])
        if true != guess and taken[true, guess] < 4:
            down, across = divmod(taken[true, guess], 2)
            sheet[true, down, :, guess, across, :, :3] = dataset.x_test[i]
            sheet[true, down, :, guess, across, :, 3] = 255
            taken[true, guess] += 1
    note = PngInfo()
    note.add_text("cells", str(classes))
    image = Image.fromarray(sheet.reshape(2 * classes * height, 2 * classes * width, 4))
    image.save(path, pnginfo=note)


def save(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Writes a figure in the format of the path's suffix."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a missing glyph becomes a box
        figure.savefig(path, dpi=dpi)
