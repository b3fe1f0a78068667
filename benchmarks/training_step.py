"""Training steps: this project, the plain Keras script, PyTorch, and what a GEMM reaches.

    python -m benchmarks.training_step [--turns 7] [--rungs 1,5]

Batch 32 of 32x32 images with the rung's network, no augmentation and oneDNN on every side.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.sides import compare, report, serve
from resnet import config

BATCH, STEPS = 32, 12


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    n = BATCH * STEPS
    return generator.integers(0, 256, (n, 32, 32, 3), "uint8"), generator.integers(0, 10, n)


def experiment(rung: str) -> config.Experiment:
    paths = config.find()
    return config.load(paths[config.select(rung, paths)[0]])


def this_project(rung: str) -> Callable[[], float]:
    from resnet import models
    from resnet.program import make_steps
    from resnet.steps import groups

    x, y = images()
    network = models.build(experiment(rung).model, (32, 32, 3), 10, seed=0)
    steps = make_steps(network, x, y, experiment(rung))
    order = np.arange(len(x), dtype="int32").reshape(STEPS, BATCH)

    def work() -> float:
        for first, batches in groups([(positions, None) for positions in order], steps.per_call):
            steps.train(batches, first)
        steps.logs()  # waits for the device
        return len(x)

    return work


def plain_script(rung: str) -> Callable[[], float]:
    """Stock layers and Keras's own step; ``fit`` ends in a nap as long as itself (docs/log.md)."""
    import keras

    from resnet import models

    x, y = images()
    x, y = x.astype("float32") / 255, keras.utils.to_categorical(y, 10)
    network = models.stock(models.build(experiment(rung).model, (32, 32, 3), 10, seed=0))
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])

    def work() -> float:
        for i in range(0, len(x), BATCH):
            network.train_on_batch(x[i : i + BATCH], y[i : i + BATCH])
        return len(x)

    return work


def pytorch(rung: str, compiled: bool) -> Callable[[], float]:
    import torch
    from torch import nn

    from benchmarks.torch_network import residual_network

    model = experiment(rung).model
    if not isinstance(model, config.Residual):
        raise SystemExit("there is no VGG in PyTorch here")
    network = residual_network(model.identity_blocks, model.dropout)
    network = network.to(memory_format=torch.channels_last) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7)
    loss = nn.CrossEntropyLoss()
    run = torch.compile(network) if compiled else network
    raw, classes = images()
    x = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
    x = x.contiguous(memory_format=torch.channels_last) if compiled else x.contiguous()
    y = torch.from_numpy(classes)

    def work() -> float:
        for i in range(0, len(x), BATCH):
            optimizer.zero_grad()
            loss(run(x[i : i + BATCH]), y[i : i + BATCH]).backward()
            optimizer.step()
        return len(x)

    return work


def gemm(rung: str) -> Callable[[], float]:
    """The rate at which a float32 matrix product would train: 3 passes of 2 operations a MAC."""
    from resnet import models

    network = models.build(experiment(rung).model, (32, 32, 3), 10, seed=0)
    operations = 6 * models.multiply_adds(network)
    a = np.random.default_rng(0).random((2048, 2048), "float32")

    def work() -> float:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < 1:
            a @ a
            done += 2 * 2048**3
        return done / operations

    return work


SIDES = {
    "plain Keras script": plain_script,
    "this project": this_project,
    "PyTorch eager": lambda rung: pytorch(rung, compiled=False),
    "PyTorch compiled, channels last": lambda rung: pytorch(rung, compiled=True),
    "a GEMM's rate": gemm,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rungs", default="1,5")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(SIDES[arguments.side](arguments.rungs))
        return
    rates = {}
    for rung in arguments.rungs.split(","):
        command = ["-m", "benchmarks.training_step", "--rungs", rung, "--side"]
        sides = {side: [*command, side] for side in SIDES}
        rates[f"rung {rung}"], _ = compare(sides, arguments.turns)
    report("training_step", "Training step", "images/s, batch 32", rates, "plain Keras script")


if __name__ == "__main__":
    main()
