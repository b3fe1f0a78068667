"""Networks, their layers, and augmentation. This package uses neither files nor MLflow.

Import ``keras`` from this package, so that Keras has the settings that all runs share.
"""

from resnet.network import augmentation
from resnet.network.backend import keras
from resnet.network.building import build, multiply_adds, notes, served
from resnet.network.layers import products
