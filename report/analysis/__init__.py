"""Reads runs from MLflow, selects those of one report, and judges every claim with its evidence.

:func:`load` makes the :class:`Content` of a report. A new quantity for claims is an entry of
``QUANTITIES``. Intervals and tests are in ``statistics`` alone.
"""

from report.analysis import statistics
from report.analysis.attribution import Ablation, Factor, plain
from report.analysis.claims import Judgement, load_statements
from report.analysis.content import Content, confusion, load, of_records
from report.analysis.planning import prospect, prospects
from report.analysis.quantities import QUANTITIES, drops
from report.analysis.runs import Run
from report.analysis.systems import Step, System, compare, holm
from report.analysis.verdicts import ASSUMED, Bound
