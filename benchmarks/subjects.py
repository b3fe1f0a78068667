"""Shared by the benchmarks: images, rungs, and training in plain Keras and in this project."""

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
    """Returns images of noise, uint8 (n, height, width, channels), and labels (n,) in 0..9."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, *shape), "uint8"), generator.integers(0, 10, n)


def plain_images(n: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Returns :func:`images` with pixels in 0..1 and one-hot labels, as a plain script has them."""
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

    The first epoch includes compilation. The total time of ``fit`` would include a wait after the
    last epoch (docs/log.md).
    """
    import keras

    ends: list[float] = []

    def end(epoch: int, logs: dict) -> None:
        float(logs["loss"])  # waits for the device
        ends.append(time.perf_counter())

    callback = keras.callbacks.LambdaCallback(on_epoch_end=end)
    network.fit(*data, epochs=2, verbose=0, callbacks=[callback], **options)
    return images / (ends[1] - ends[0])


def project_steps(
    networks: Sequence[Any], data: tuple[np.ndarray, np.ndarray], rung: Experiment
) -> Turn:
    """Prepares one epoch of this project's training steps, without augmentation.

    Several networks train in the lanes of one program, each in its own thread.
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
        lane.logs()  # waits for the device

    return lambda: rate(n * lanes, lambda: list(threads.map(train, steps)))
