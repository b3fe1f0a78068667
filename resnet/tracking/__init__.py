"""Writes one MLflow run per job. A lease keeps other processes from training the same run."""

from resnet.tracking.leases import Lease, Lost
from resnet.tracking.registry import register
from resnet.tracking.runs import RunWriter, child_run, parent_run
from resnet.tracking.taking import key_of, sharing, take, unfinished
