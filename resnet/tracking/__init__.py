"""What a training leaves in MLflow: runs taken, written and ended, exactly one per job.

A job's run is found again by its :class:`resnet.study.Key`; a lease says who may work on it, where
several machines share a store.
"""

from resnet.tracking.leases import Lease, Lost
from resnet.tracking.registry import register
from resnet.tracking.runs import RunWriter, child_run, parent_run
from resnet.tracking.taking import key_of, sharing, take, unfinished
