"""docs/tour.ipynb from its first cell to its last."""

import nbformat

import report
from docs import tour


def texts(notebook):
    """What each cell prints or shows, without pictures and warnings."""
    return [
        output.get("text") or output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") != "stderr"
    ]


def test_its_stored_outputs_are_those_of_a_new_execution():
    stored = nbformat.read(tour.TOUR, as_version=4)
    assert texts(stored) == texts(tour.execute())
    assert len(stored.cells) == 10  # as its title and the README say
    assert sum("image/png" in str(cell.get("outputs")) for cell in stored.cells) == 2
    assert max(text.count("\n") for text in texts(stored)) <= 40  # a screen


def test_it_says_of_the_largest_gain_what_the_report_says():
    claim = report.recorded()["claims"].set_index("claim").loc["augmentation-largest"]
    said = "".join(texts(nbformat.read(tour.TOUR, as_version=4)))
    assert f"{claim.text}: {claim.verdict}\n" in said
