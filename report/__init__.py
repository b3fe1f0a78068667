"""From what MLflow holds to tables, figures, judged claims and a page; reads nothing else.

``report.results()`` and ``report.curves()`` give the numbers to a notebook.
"""

from typing import TYPE_CHECKING, Any

from resnet.shell import DEFAULT_URI

if TYPE_CHECKING:
    import pandas as pd


def results(uri: str = DEFAULT_URI, **chosen: Any) -> "pd.DataFrame":
    """The runs that a report would show, a row each: what they are, metrics, published accuracy.

    Args:
        uri: MLflow tracking URI.
        **chosen: see :func:`report.analysis.load`.

    Returns:
        A data frame; accuracies are fractions of 1, times seconds.

    Raises:
        UserError: the store cannot be read, or nothing in it matches.
    """
    from report import analysis, tables  # which take seconds

    return tables.runs(analysis.load(uri, **chosen)).frame


def curves(uri: str = DEFAULT_URI, **chosen: Any) -> "pd.DataFrame":
    """Their curves, a row an epoch and run; arguments and errors as of :func:`results`."""
    from report import analysis, tables

    return tables.curves(analysis.load(uri, **chosen)).frame
