"""What is run: a study's folder of YAML, resolved into experiments with every value explicit.

:class:`Study` is a folder, :class:`Experiment` one rung, :class:`Job` that with a seed, and
:class:`Key` says of a run what it is. Whatever is wrong with a file ends as one line.
"""

from resnet.study import ablation, signatures
from resnet.study.files import read_yaml
from resnet.study.job import GROUP, KEYS, Job, Key, group
from resnet.study.keys import explain, settings
from resnet.study.resolve import change, from_yaml, load, own_networks, sweep
from resnet.study.schema import (
    Augmentation,
    Experiment,
    Name,
    Strict,
    Text,
    Training,
    Validation,
    differences,
    rung_number,
    rungs,
    short,
)
from resnet.study.study import SHIPPED, TEMPLATE, Study, select
