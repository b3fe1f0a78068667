"""Training steps: this project, the plain Keras script, PyTorch, and what a GEMM reaches.

    python -m benchmarks.training_step [--turns 7] [--rungs 1,5]

Batch 32 of 32x32 images with the rung's network, no augmentation and oneDNN on every side.
"""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.sides import compare, parser, report, serve
from benchmarks.subjects import BATCH, SHAPE, experiment, images, plain_keras
from resnet.study import Experiment

STEPS = 12
STARTS = range(0, STEPS * BATCH, BATCH)


def this_project(rung: Experiment) -> Callable[[], float]:
    from resnet.network import build
    from resnet.training import Batch, groups, make_steps

    steps = make_steps(build(rung, SHAPE, 10, seed=0), *images(STEPS * BATCH), rung)
    batches: list[Batch] = [
        (np.arange(start, start + BATCH, dtype="int32"), None) for start in STARTS
    ]

    def work() -> float:
        for first, some in groups(batches, steps.per_call):
            steps.train(some, first)
        steps.logs()  # waits for the device
        return STEPS * BATCH

    return work


def plain_script(rung: Experiment) -> Callable[[], float]:
    """Trains by Keras's own step; ``fit`` ends in a nap as long as itself (docs/log.md)."""
    network, x, y = plain_keras(rung, STEPS * BATCH)

    def work() -> float:
        for start in STARTS:
            network.train_on_batch(x[start : start + BATCH], y[start : start + BATCH])
        return STEPS * BATCH

    return work


def pytorch(rung: Experiment, compiled: bool) -> Callable[[], float]:
    from benchmarks.torch_network import training_step

    step = training_step(rung, STEPS * BATCH, compiled, "cpu")

    def work() -> float:
        for start in STARTS:
            step(start)
        return STEPS * BATCH

    return work


def gemm(rung: Experiment) -> Callable[[], float]:
    """Tells how fast a float32 matrix product would train: 3 passes of 2 operations a MAC."""
    from resnet.network import build, multiply_adds

    operations = 6 * multiply_adds(build(rung, SHAPE, 10, seed=0))
    a = np.random.default_rng(0).random((2048, 2048), "float32")

    def work() -> float:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < 1:
            a @ a
            done += 2 * 2048**3
        return done / operations

    return work


SIDES: dict[str, Callable[[Experiment], Callable[[], float]]] = {
    "plain Keras script": plain_script,
    "this project": this_project,
    "PyTorch eager": lambda rung: pytorch(rung, compiled=False),
    "PyTorch compiled, channels last": lambda rung: pytorch(rung, compiled=True),
    "a GEMM's rate": gemm,
}


def main() -> None:
    options = parser(__doc__, turns=7)
    options.add_argument("--rungs", default="1,5")
    chosen = options.parse_args()
    if chosen.side:
        return serve(SIDES[chosen.side](experiment(chosen.rungs)))
    rates = {}
    for rung in chosen.rungs.split(","):
        rates[f"rung {rung}"], _ = compare(SIDES, chosen.turns, "--rungs", rung)
    report("training_step", "Training step", "images/s, batch 32", rates, "plain Keras script")


if __name__ == "__main__":
    main()
