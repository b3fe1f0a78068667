"""Analyses runs (``analysis``) and shows the results (``presentation``).

:func:`tables` and :func:`recorded` return the report's tables as data frames, for notebooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pandas takes a second to import
    import pandas as pd

    from report.analysis import Content


def tables(uri: str | None = None, **chosen: Any) -> dict[str, pd.DataFrame]:
    """Maps table names (such as ``progression``) to the report's tables for a store's runs.

    Accuracies are fractions of 1, and times are in seconds. The arguments are those of
    :func:`report.analysis.load`. Raises UserError if no runs match.
    """
    from report import analysis

    return _frames(analysis.load(uri, **chosen))


def recorded(experiments: str | None = None) -> dict[str, pd.DataFrame]:
    """Returns the tables for a study's recorded runs; ``experiments`` is the study's folder."""
    from report import analysis
    from resnet.records import load_all
    from resnet.study import Study

    study = Study.open(experiments)
    return _frames(analysis.of_records(study, load_all(study.results).values()))


def _frames(content: Content) -> dict[str, pd.DataFrame]:
    from report.presentation.tables import all_tables

    return {name: table.frame for name, table in all_tables(content).items()}
