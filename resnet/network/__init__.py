"""The study's networks, their layers and their augmentation; they know neither files nor MLflow.

Whoever builds or computes with Keras takes ``keras`` from here: it is set up as every run has it.
"""

from resnet.network import augmentation
from resnet.network.backend import keras
from resnet.network.building import build, multiply_adds, notes, served
from resnet.network.layers import products
