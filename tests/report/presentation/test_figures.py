"""Tests the report's figures, and the sheet of a run's misclassified images."""

import re

import numpy as np
import pytest
from report_known import N
from report_store import LADDER, right

from report import analysis
from report.presentation import figures
from resnet.data import Dataset
from resnet.records import figures as run_figures


def test_a_gain_is_shown_even_if_the_two_rungs_have_different_seeds(store):
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[1], right(N, 800), seed=1)
    figure = figures.all_figures(analysis.load(store.uri))["gains"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("not run") == len(LADDER) - 1


def test_figures_have_a_title_and_text_and_use_only_colours_of_the_page(full):
    for path in (full[1] / "figures").glob("*.svg"):
        svg = path.read_text()
        assert "<title>" in svg
        assert svg.count("<text") > 5, path
        inside = figures.inline(svg, "x")
        assert '<svg role="img"' in inside
        colours = set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r"var\(--\w+, #\w+\)", "", inside)))
        assert not colours, path
    drawn = figures.all_figures(analysis.load(full[0].uri))
    limits = {
        (axes.get_xlim(), axes.get_ylim(), i)
        for name, figure in drawn.items()
        if name.startswith("curves_")
        for i, axes in enumerate(figure.axes)
    }
    assert len(limits) == 2  # one for all axes of accuracies, one for all axes of losses


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_arranged_by_true_and_predicted_class(channels, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    n, path = 200, tmp_path / "mistakes.png"
    x = generator.integers(0, 256, (n, 4, 6, channels), "uint8")
    y = np.arange(n, dtype="uint8") % 3
    probabilities = generator.dirichlet([1, 1, 1], n)
    dataset = Dataset("squares", ("a", "b", "c"), x, y, x, y, "here")
    monkeypatch.setattr(run_figures.Image, "MAX_IMAGE_PIXELS", 4 * 3**2 * 4 * 6 - 1)
    run_figures.mistakes(dataset, probabilities, path)
    assert not path.exists()  # Pillow would warn about so large an image
    monkeypatch.undo()
    run_figures.mistakes(dataset, probabilities, path)
    with run_figures.Image.open(path) as image:
        assert image.info["cells"] == "3"
        sheet = np.asarray(image)
    predicted = probabilities.argmax(axis=1)
    # 3 x 3 cells, each with 2 x 2 images of 4 x 6 pixels and four channels (RGBA)
    cells = sheet.reshape(3, 2, 4, 3, 2, 6, 4).transpose(0, 3, 1, 4, 2, 5, 6)
    for true, told in np.ndindex(3, 3):
        images = cells[true, told].reshape(4, 4, 6, 4)
        found = np.flatnonzero((y == true) & (predicted == told) & (true != told))
        surest = found[np.argsort(-probabilities[found, told])][:4]
        assert (images[: len(surest), ..., :3] == x[surest]).all()  # grey images stay grey
        assert (images[..., 3] == 255 * (np.arange(4) < len(surest))[:, None, None]).all()
