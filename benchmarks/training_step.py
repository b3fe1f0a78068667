"""Times training steps of plain Keras, this project and PyTorch, on a CPU, without augmentation.

All three use oneDNN. A batch has 32 images of 32x32 pixels. A matrix product is timed too.
"""

from functools import partial

import numpy as np
import typer

from benchmarks import subjects
from benchmarks.sides import Side, Turn, compare, rate, report
from benchmarks.subjects import BATCH, SHAPE
from resnet.study import Experiment

Case = tuple[Experiment, int]
"""A rung and the number of images per turn."""


def plain_keras(case: Case) -> Turn:
    network, data = subjects.plain_network(case[0]), subjects.plain_images(case[1])
    return lambda: subjects.second_epoch(network, case[1], *data, batch_size=BATCH)


def this_project(lanes: int, case: Case) -> Turn:
    from resnet.network import build

    networks = [build(case[0], SHAPE, 10, seed) for seed in range(lanes)]
    return subjects.project_steps(networks, subjects.images(case[1]), case[0])


def pytorch(device: str, compiled: bool, case: Case) -> Turn:
    from benchmarks.torch_network import training

    return training(*case, compiled, device)


def gemm(case: Case) -> Turn:
    """Returns a turn that times a matrix product and converts its speed to training images/s."""
    from resnet.network import build, multiply_adds

    # two operations per multiply-add, times three passes (one forward, two backward)
    operations = 6 * multiply_adds(build(case[0], SHAPE, 10, seed=0))
    a = np.random.default_rng(0).random((4096, 4096), "float32")
    return lambda: rate(2 * 4096**3 / operations, lambda: a @ a)


SIDES: dict[str, Side] = {
    "plain Keras script": plain_keras,
    "this project": partial(this_project, 1),
    "PyTorch eager": partial(pytorch, "cpu", False),
    "PyTorch compiled, channels last": partial(pytorch, "cpu", True),
    "a GEMM's rate": gemm,
}


def main(turns: int = 7, rungs: str = "1,5") -> None:
    """Times training steps on a CPU. Keras, this project and PyTorch take turns."""
    cases = {f"rung {rung}": (subjects.experiment(rung), 12 * BATCH) for rung in rungs.split(",")}
    rates = {name: compare(SIDES, case, turns) for name, case in cases.items()}
    report("training_step", "Training step", "images/s, batch 32", rates)


if __name__ == "__main__":
    typer.run(main)
