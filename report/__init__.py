"""Judges the runs in MLflow (``analysis``), and shows them as tables, figures and a page.

:func:`tables` and :func:`recorded` give a notebook the report's tables as data frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pandas takes a second to import
    import pandas as pd

    from report.analysis import Content


def tables(uri: str | None = None, **chosen: Any) -> dict[str, pd.DataFrame]:
    """Returns the report's tables of a store's runs by name: ``progression``, ``runs``, ...

    Accuracies are fractions of 1, times seconds. ``chosen`` selects runs as
    :func:`report.analysis.load` takes them; UserError is raised if none match.
    """
    from report import analysis

    return _frames(analysis.load(uri, **chosen))


def recorded() -> dict[str, pd.DataFrame]:
    """Returns the tables of the report of the recorded runs, without a store."""
    from report import analysis
    from resnet.records import load_all
    from resnet.study import Study

    study = Study.open()
    return _frames(analysis.of_records(study, load_all(study.results).values()))


def _frames(content: Content) -> dict[str, pd.DataFrame]:
    from report.presentation.tables import all_tables

    return {name: table.frame for name, table in all_tables(content).items()}
