"""Resolves the YAML files of a study into experiments in which every value is explicit."""

from resnet.study import ablation, signatures
from resnet.study.files import read_yaml, sweep
from resnet.study.job import GROUP, KEYS, Job, Key, group
from resnet.study.keys import explain, settings
from resnet.study.resolve import change, from_yaml, load, own_networks
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
