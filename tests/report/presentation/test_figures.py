"""The report's figures, and a run's own."""

import re

import numpy as np
import pytest
from report_known import N
from report_store import LADDER, right

from report import analysis
from report.presentation import figures
from resnet.data import Dataset
from resnet.records import figures as run_figures


def test_a_step_between_runs_of_other_seeds_was_run(store):
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[1], right(N, 800), seed=1)
    figure = figures.all_figures(analysis.load(store.uri))["gains"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("not run") == len(LADDER) - 1


def test_figures(full):
    """Text stays text under a name; in the page every colour is the page's, to follow dark mode."""
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
    assert len(limits) == 2  # accuracy and loss, whatever the rung


@pytest.mark.parametrize("channels", [1, 3])
def test_mistakes_are_arranged_by_class(channels, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    n, path = 200, tmp_path / "mistakes.png"
    x = generator.integers(0, 256, (n, 4, 6, channels), "uint8")
    y = np.arange(n, dtype="uint8") % 3
    probabilities = generator.dirichlet([1, 1, 1], n)
    dataset = Dataset("squares", ("a", "b", "c"), x, y, x, y, "here")
    monkeypatch.setattr(run_figures.Image, "MAX_IMAGE_PIXELS", 4 * 3**2 * 4 * 6 - 1)
    run_figures.mistakes(dataset, probabilities, path)
    assert not path.exists()  # the report would be refused it
    monkeypatch.undo()
    run_figures.mistakes(dataset, probabilities, path)
    with run_figures.Image.open(path) as image:
        assert image.info["cells"] == "3"
        sheet = np.asarray(image)
    predicted = probabilities.argmax(axis=1)
    for true in range(3):
        for told in range(3):
            cell = sheet[true * 8 : true * 8 + 8, told * 12 : told * 12 + 12]
            found = np.flatnonzero((y == true) & (predicted == told) & (true != told))
            surest = found[np.argsort(-probabilities[found, told])][:4]
            for place in range(4):
                down, across = divmod(place, 2)
                tile = cell[down * 4 : down * 4 + 4, across * 6 : across * 6 + 6]
                if place < len(surest):
                    assert (tile[..., :3] == x[surest[place]]).all()  # grey stays grey
                assert (tile[..., 3] == 255 * (place < len(surest))).all()
