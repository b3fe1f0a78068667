"""Trains many jobs: one by one, in lanes, or on a cluster.

:func:`run_jobs` takes an engine. ``lanes.run`` uses a thread per run and one compiled program.
``cluster.run`` uses Ray and a process per run. :func:`estimate` predicts how long a job takes.
"""

from resnet.engines.jobs import Invocation, run_jobs
from resnet.engines.timing import estimate
