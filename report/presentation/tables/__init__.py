"""The report's tables.

Modules: ``progression`` (accuracies), ``results`` (steps, claims, classes), ``ablations`` (single
changes), ``compared`` (sets of runs), and ``provenance`` (runs, environment).
"""

from report.analysis import Content
from report.presentation.tables import ablations, compared, progression, provenance, results
from report.presentation.tables.table import Table


def all_tables(content: Content) -> dict[str, Table]:
    """Maps names to the report's tables."""
    made = [
        progression.progression(content),
        results.comparison("steps", "Gain of each rung over the one before", content),
        results.comparison("rivals", "Gain of the last rung over the baselines", content),
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
