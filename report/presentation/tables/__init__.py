"""The report's tables; a new column is a ``Field`` in the function that makes the table.

``progression`` has the accuracies, ``results`` the steps, claims and classes, ``ablations`` the
parts of steps, ``provenance`` runs and environment; ``numbers`` formats figures.
"""

from report.analysis import Content
from report.presentation.tables.ablations import alternatives, derived_runs, factors, ranges
from report.presentation.tables.compared import compared, unlike
from report.presentation.tables.progression import progression, rows
from report.presentation.tables.provenance import (
    assumptions,
    contradictions,
    cost,
    curves,
    environment,
    runs,
)
from report.presentation.tables.results import (
    backends,
    classes,
    comparison,
    confusion_matrix,
    judged,
    per_class,
    seeds,
)
from report.presentation.tables.table import Table


def all_tables(content: Content) -> dict[str, Table]:
    """Makes every table of the report; by name."""
    steps, rivals, others = content.steps, content.rivals, range(len(content.compared))
    made = [
        progression(content),
        comparison("steps", "Neighbouring rungs on the same test images", content, steps),
        comparison("rivals", "The last rung against the baselines", content, rivals),
        *map(factors, content.ablations),
        *(t(content) for t in (judged, rows, seeds, backends, classes, per_class)),
        *(t(content) for t in (confusion_matrix, assumptions, contradictions, cost, runs, curves)),
        *(t(content) for t in (derived_runs, alternatives, ranges)),
        *(compared(content, i) for i in others),
        *(unlike(content, i) for i in others),
        environment(content),
    ]
    return {table.name: table for table in made}
