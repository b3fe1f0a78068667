"""The study's networks, their layers and their augmentation; they know neither files nor MLflow.

Import ``keras`` from here: it then has the settings of every run.
"""

from resnet.network import augmentation
from resnet.network.backend import keras
from resnet.network.building import build, multiply_adds, notes, served
from resnet.network.layers import products
