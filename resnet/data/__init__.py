"""Loads datasets by name, from image folders, or from archives of image folders."""

from resnet.data.datasets import NAMED, Dataset, Source, load
from resnet.data.folders import stratified
