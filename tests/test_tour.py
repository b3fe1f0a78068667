"""The notebook docs/tour.ipynb is up to date and agrees with the report."""

import nbformat

import report
from docs import tour


def texts(notebook):
    """Returns the text outputs of a notebook's cells, without warnings."""
    return [
        output.get("text") or output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") != "stderr"
    ]


def test_a_new_execution_of_the_notebook_gives_the_stored_outputs():
    stored = nbformat.read(tour.TOUR, as_version=4)
    assert texts(stored) == texts(tour.execute())
    assert len(stored.cells) == 10  # as the notebook's title and the README say
    assert sum("image/png" in str(cell.get("outputs")) for cell in stored.cells) == 2
    assert max(text.count("\n") for text in texts(stored)) <= 40  # each text fits on a screen


def test_the_notebook_and_the_report_agree_on_the_largest_gain():
    claim = report.recorded()["claims"].set_index("claim").loc["augmentation-largest"]
    shown = "".join(texts(nbformat.read(tour.TOUR, as_version=4)))
    assert f"{claim.text}: {claim.verdict}\n" in shown
