"""The report's tables; a new column is a ``Field`` in the function that makes the table.

``progression`` says what was reproduced, ``results`` how the rest is judged, ``parts`` what steps
are made of, ``provenance`` what it rests on; ``numbers`` writes figures, ``commands`` commands.
"""

from report.analysis import Content
from report.presentation.tables.compared import compared, unlike
from report.presentation.tables.parts import alternatives, factors, parts, ranges
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
    networks,
    per_class,
    seeds,
)
from report.presentation.tables.table import Table


def all_tables(content: Content) -> dict[str, Table]:
    """Makes every table of the report; by name."""
    steps, rivals = content.steps, content.rivals
    made = [
        progression(content),
        comparison("steps", "Neighbouring rungs on the same test images", content, steps),
        comparison("rivals", "The last rung against the baselines", content, rivals),
        *map(factors, content.apart),
        judged(content),
        *(
            table(content)
            for table in (rows, seeds, backends, networks, classes, per_class, confusion_matrix)
        ),
        *(table(content) for table in (assumptions, contradictions, cost, runs, curves)),
        *(table(content) for table in (parts, alternatives, ranges)),
        *(compared(content, i) for i in range(len(content.compared))),
        *(unlike(content, i) for i in range(len(content.compared))),
        environment(content),
    ]
    return {table.name: table for table in made}
