"""Estimates how long a job takes on this machine, from a few steps on random images."""

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

import numpy as np

from resnet.network import build, multiply_adds
from resnet.study import Job
from resnet.training import Batch, Epochs, Steps, groups, side_by_side

_SECONDS = 3.0  # time for training steps; validation steps get half of this time


def estimate(
    job: Job, n_train: int, n_classes: int, shape: tuple[int, int, int], lanes: int
) -> dict[str, float]:
    """Measures the speed of a job on this machine.

    Returns:
        ``parameters``, ``multiply_adds``, ``images_per_second`` (the sum over all lanes) and
        ``time`` (seconds for training and validation in all epochs, without early stopping). If
        jobs train side by side, ``time`` is the time for ``lanes`` jobs, divided by ``lanes``.
    """
    experiment = job.experiment
    networks = [build(experiment, shape, n_classes, seed) for seed in range(lanes)]
    epochs = Epochs.make(experiment, n_train, shape[:2], job.seed)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (256, *shape), "uint8")
    labels = generator.integers(0, n_classes, 256)
    every = side_by_side(networks, images, labels, experiment)

    def rates(steps: Steps) -> tuple[float, float]:
        with contextlib.closing(steps):
            calls = (call for _, call in groups(epochs.batches(0), steps.per_call))
            train = _rate(steps, steps.train, calls, _SECONDS)
            tests = ([batch] for batch in epochs.validation_batches(0))
            return train, _rate(steps, lambda b, n: steps.test(b[0], n), tests, _SECONDS / 2)

    with ThreadPoolExecutor(lanes) as pool:
        training_rate, validation_rate = map(sum, zip(*pool.map(rates, every), strict=True))
    epoch = epochs.training_images / training_rate + epochs.validation_images / validation_rate
    return {
        "parameters": networks[0].count_params(),
        "multiply_adds": multiply_adds(networks[0]),
        "images_per_second": training_rate,
        "time": epoch * experiment.training.epochs,
    }


def _rate(steps: Steps, step: Callable, calls: Iterable[list[Batch]], seconds: float) -> float:
    """Measures images/s with batches of one size. The first two calls compile and do not count."""
    first, *others = islice(calls, 4)
    same = [first, *(call for call in others if len(call[0][0]) == len(first[0][0]))]
    done, began = 0, time.monotonic()
    for number, call in enumerate(cycle(same)):
        step([(positions % 256, transforms) for positions, transforms in call], 0)
        steps.logs()  # logs() waits for the device
        if number < 2:
            began = time.monotonic()
            continue
        done += sum(len(positions) for positions, _ in call)
        if time.monotonic() - began > seconds:
            break
    return done / (time.monotonic() - began)
