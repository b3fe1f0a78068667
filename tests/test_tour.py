"""docs/tour.ipynb from its first cell to its last."""

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

TOUR = ROOT / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour")
    notebook = nbformat.read(TOUR, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    return client.execute()


def text(notebook):
    return "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


def test_it_restores_tells_the_progression_and_answers_its_question(executed):
    said = text(executed)
    records = len(list((ROOT / "results").glob("*.json")))
    assert f"{records} of {records} runs restored" in said
    assert "02_augmentation" in said and "fails (under our assumptions)" in said
    assert "gained most:" in said and "points" in said
    assert sum("image/png" in str(cell.get("outputs", "")) for cell in executed.cells) == 2


def test_it_is_kept_without_outputs_and_none_is_longer_than_a_screen(executed):
    for cell in nbformat.read(TOUR, as_version=4).cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
    assert len(executed.cells) == 10  # as its title and the README say
    for cell in executed.cells:
        for output in cell.get("outputs", ()):
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            assert shown.count("\n") <= 40
