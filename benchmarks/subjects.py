"""Images, rungs and networks for the benchmarks, and functions that train the networks."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks.sides import Turn, rate
from resnet.study import Experiment, Study, select

BATCH = 32
SHAPE = (32, 32, 3)


def images(n: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Returns random uint8 images (n, height, width, channels) and labels (n,) from 0 to 9."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, *shape), "uint8"), generator.integers(0, 10, n)


def plain_images(n: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of :func:`images` as float32 pixels from 0 to 1, and one-hot labels."""
    pixels, classes = images(n, shape)
    return pixels.astype("float32") / 255, np.eye(10, dtype="float32")[classes]


def experiment(rung: str, changes: Sequence[str] = ()) -> Experiment:
    study = Study.open()
    (name,) = select(rung, study.files)
    return study.experiment(name, overrides=changes)


def plain_network(rung: Experiment) -> Any:
    from resnet.network import building

    network = building.stock(building.build(rung, SHAPE, 10, seed=0))
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return network


def second_epoch(network: Any, images: int, *data: Any, **options: Any) -> float:
    """Trains two epochs with ``fit``; returns images per second in the second epoch.

    The rate excludes compilation in the first epoch and a wait at the end of ``fit`` (docs/log.md).
    """
    import keras

    ends: list[float] = []

    def end(epoch: int, logs: dict) -> None:
        float(logs["loss"])  # waits until the device has finished
        ends.append(time.perf_counter())

    callback = keras.callbacks.LambdaCallback(on_epoch_end=end)
    network.fit(*data, epochs=2, verbose=0, callbacks=[callback], **options)
    return images / (ends[1] - ends[0])


def project_steps(
    networks: Sequence[Any], data: tuple[np.ndarray, np.ndarray], rung: Experiment
) -> Turn:
    """Returns a turn in which this project trains one epoch without augmentation.

    Each network trains in its own thread. On JAX, the networks are lanes of one program.
    """
    from resnet.training import groups, side_by_side

    n, lanes = len(data[0]), len(networks)
    steps = side_by_side(networks, *data, rung)
    positions = np.split(np.arange(n, dtype="int32"), n // rung.training.batch_size)
    threads = ThreadPoolExecutor(lanes)

    def train(lane: Any) -> None:
        lane.reset()
        for first, batches in groups([(some, None) for some in positions], lane.per_call):
            lane.train(batches, first)
        lane.logs()  # waits until the device has finished

    return lambda: rate(n * lanes, lambda: list(threads.map(train, steps)))
