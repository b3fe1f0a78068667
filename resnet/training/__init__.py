"""One experiment in, one trained and tested network out; exact resume.

:func:`train` is the one loop. Its compiled :class:`Steps` are one network's own or a :class:`Lane`
of a :class:`Program` for many; ``checkpoints`` keeps its states; :func:`numerics` says what bits
depend on. Another optimizer goes into ``steps``.
"""

from resnet.training import checkpoints
from resnet.training.epochs import Epochs
from resnet.training.loop import Outcome, train
from resnet.training.numerics import accelerator, numerics, reservations
from resnet.training.program import Lane, Program, make_steps
from resnet.training.steps import Batch, Steps, groups, probabilities
