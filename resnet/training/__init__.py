"""One experiment in, one trained and tested network out; exact resume.

:func:`train` is the one loop. Its compiled :class:`Steps` are for one network, or a :class:`Lane`
of a :class:`Program` for many. :func:`numerics` collects the facts that bits depend on.
"""

from resnet.training import checkpoints
from resnet.training.epochs import Epochs
from resnet.training.loop import Outcome, train
from resnet.training.numerics import accelerator, device_warnings, numerics
from resnet.training.program import Lane, Program, make_steps
from resnet.training.steps import Batch, Steps, groups
