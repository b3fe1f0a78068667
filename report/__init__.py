"""From what MLflow holds to judged claims (``analysis``) and to tables, figures and a page.

``report.results()`` and ``report.curves()`` give the numbers to a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which takes a second that nobody should wait for in vain
    import pandas as pd


def results(uri: str | None = None, **chosen: Any) -> pd.DataFrame:
    """Returns the runs that a report would show, a row each, with metrics and published accuracy.

    Args:
        uri: MLflow tracking URI; by default the project's own.
        **chosen: see :func:`report.analysis.load`.

    Returns:
        A data frame; accuracies are fractions of 1, times seconds.

    Raises:
        UserError: the store cannot be read, or nothing in it matches.
    """
    from report import analysis  # which takes seconds
    from report.presentation.tables.provenance import runs

    return runs(analysis.load(uri, **chosen)).frame


def curves(uri: str | None = None, **chosen: Any) -> pd.DataFrame:
    """Returns their curves, a row an epoch and run; arguments and errors as of :func:`results`."""
    from report import analysis
    from report.presentation.tables import provenance

    return provenance.curves(analysis.load(uri, **chosen)).frame
