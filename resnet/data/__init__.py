"""Datasets: by name, from an image folder, or from an archive of one."""

from resnet.data.datasets import NAMED, Dataset, Source, load
from resnet.data.folders import stratified
