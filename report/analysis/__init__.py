"""What judges: runs read from MLflow, one selection of them, and every verdict with its evidence.

:func:`load` makes the :class:`Content` of a report. A new quantity that claims may be about is an
entry of ``QUANTITIES`` in ``claims``; how sure one can be is in ``statistics`` alone.
"""

from report.analysis import statistics
from report.analysis.attribution import Apart, Factor, plain
from report.analysis.claims import Judgement, load_statements
from report.analysis.content import Content, by_class, confusion, load, of_records, planned
from report.analysis.planning import prospect, prospects
from report.analysis.quantities import QUANTITIES, drops
from report.analysis.runs import Run
from report.analysis.selection import state
from report.analysis.systems import Step, System, compare, holm
from report.analysis.verdicts import ASSUMED, Bound
