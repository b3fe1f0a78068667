"""Renews what docs/tour.ipynb shows below its cells: a part of ``make readme``."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("tour.ipynb")


def execute() -> nbformat.NotebookNode:
    """Returns the notebook with the outputs of a new execution."""
    notebook = nbformat.read(TOUR, as_version=4)
    return NotebookClient(notebook, timeout=300, record_timing=False).execute()


if __name__ == "__main__":
    nbformat.write(execute(), TOUR)
