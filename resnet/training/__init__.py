"""Trains and tests one experiment, and resumes an interrupted run exactly.

:func:`train` trains one network, alone or in a :class:`Lane` of a :class:`Program`.
:func:`numerics` collects the facts that a run's exact results depend on.
"""

from resnet.training import checkpoints
from resnet.training.epochs import Epochs
from resnet.training.loop import Outcome, train
from resnet.training.numerics import accelerator, device_warnings, numerics
from resnet.training.program import Lane, Program, make_steps, side_by_side
from resnet.training.steps import Batch, Steps, groups
