"""Reads runs from MLflow, selects the runs of one report, and judges every claim.

:func:`load` returns the :class:`Content` of a report. To add a quantity, add an entry to
``QUANTITIES``. Intervals and p values over seeds are computed in ``statistics``.
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
