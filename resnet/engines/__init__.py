"""Which jobs are due, and the engines that train them: one by one, in lanes, on a cluster.

:func:`run_jobs` takes an engine: ``lanes.run`` has a thread per run in one compiled program,
``cluster.run`` a process per run (Ray). :func:`estimate` says how long a job takes.
"""

from resnet.engines.jobs import Invocation, run_jobs
from resnet.engines.timing import estimate
