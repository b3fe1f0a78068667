"""What a training leaves in MLflow: runs taken, fed and ended, exactly one a job.

A child run is found again by its :class:`resnet.study.Key`; a lease says who may work on it, where
several machines share a store. Restored records stand beside and are never taken for these.
"""

from resnet.tracking.leases import Lease, Lost
from resnet.tracking.registry import register
from resnet.tracking.runs import ChildRun, child_run, parent_run
from resnet.tracking.taking import key_of, sharing, take, unfinished
