"""Which runs are due, and the engines that train them: one by one, in lanes, on a cluster.

:func:`run_jobs` is given an engine: ``cluster.run`` has a process a run (Ray, which nothing else
imports), ``lanes.run`` a thread a run in one compiled program. :func:`estimate` tells the time.
"""

from resnet.ladder.ladder import Ladder, run_jobs
from resnet.ladder.timing import estimate
