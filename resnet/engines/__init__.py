"""Trains many jobs: one by one, in lanes, or on a cluster.

:func:`run_jobs` takes an engine: ``lanes.run`` (a thread per run, one compiled program) or
``cluster.run`` (Ray, a process per run). :func:`estimate` predicts how long a job takes.
"""

from resnet.engines.jobs import Invocation, run_jobs
from resnet.engines.timing import estimate
