"""What is trained on every side: images of CIFAR-10's shape and the rungs, here in plain Keras."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet.study import Experiment, Study, select

BATCH = 32
SHAPE = (32, 32, 3)


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes noise, uint8 (n, 32, 32, 3), and labels (n,) of ten classes."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, *SHAPE), "uint8"), generator.integers(0, 10, n)


def experiment(rung: str, changes: Sequence[str] = ()) -> Experiment:
    """Loads one of the study's, by number or name, changed as by ``--set``.

    Raises:
        UserError: there is no such rung, or a change is not allowed.
    """
    study = Study.open()
    (name,) = select(rung, study.files)
    return study.experiment(name, overrides=changes)


def plain_keras(of: Experiment, n: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """Builds its network in stock layers, with ``n`` images and labels as a script has them."""
    import keras

    from resnet.network import building

    pixels, classes = images(n)
    network = building.stock(building.build(of, SHAPE, 10, seed=0))
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return network, pixels.astype("float32") / 255, keras.utils.to_categorical(classes, 10)
