"""The report's tables; a new column is a ``Field`` in the function that makes the table.

``progression`` has the accuracies, ``results`` the steps, claims and classes, ``ablations`` the
parts of steps, ``provenance`` runs and environment; ``numbers`` formats figures.
"""

from report.analysis import Content
from report.presentation.tables import ablations, compared, progression, provenance, results
from report.presentation.tables.table import Table


def all_tables(content: Content) -> dict[str, Table]:
    """Makes every table of the report; by name."""
    title = "Neighbouring rungs on the same test images"
    rivals = "The last rung against the baselines"
    made = [
        progression.progression(content),
        results.comparison("steps", title, content, content.steps),
        results.comparison("rivals", rivals, content, content.rivals),
        *map(ablations.factors, content.ablations),
        results.judged(content),
        progression.rows(content),
        results.seeds(content),
        results.backends(content),
        results.classes(content),
        results.per_class(content),
        results.confusion_matrix(content),
        provenance.assumptions(content),
        provenance.contradictions(content),
        provenance.cost(content),
        provenance.runs(content),
        provenance.curves(content),
        ablations.alternatives(content),
        *(compared.compared(content, i) for i in range(len(content.compared))),
        provenance.environment(content),
    ]
    return {table.name: table for table in made}
