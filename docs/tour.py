"""Executes docs/tour.ipynb and stores the new outputs. ``make readme`` calls this module."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("tour.ipynb")


def execute() -> nbformat.NotebookNode:
    """Executes the notebook and returns it with its new outputs."""
    notebook = nbformat.read(TOUR, as_version=4)
    return NotebookClient(notebook, timeout=300, record_timing=False).execute()


if __name__ == "__main__":
    nbformat.write(execute(), TOUR)
