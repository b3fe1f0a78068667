"""Times training steps of plain Keras on JAX, of PyTorch and of this project's lanes, on a GPU.

A batch has 32 images of 32x32 pixels. All programs stay in GPU memory but train one at a time.
"""

import os
from functools import partial

import typer

from benchmarks.sides import Side, Turn, compare, report
from benchmarks.subjects import experiment
from benchmarks.training_step import Case, plain_keras, pytorch, this_project
from resnet import DETERMINISM


def free_keras(case: Case) -> Turn:
    # a plain script need not resume exactly, so it may use the fastest kernels
    os.environ["XLA_FLAGS"] = os.environ["XLA_FLAGS"].replace(f"{DETERMINISM}=true", "")
    return plain_keras(case)


def sides(lanes: list[int]) -> dict[str, Side]:
    return {
        "plain Keras": free_keras,
        **{f"this project, lanes: {number}": partial(this_project, number) for number in lanes},
        "PyTorch eager": partial(pytorch, "cuda", False),
        "PyTorch compiled": partial(pytorch, "cuda", True),
    }


def main(turns: int = 3, rungs: str = "2,5", lanes: str = "1,2,5,10") -> None:
    """Times training steps on a GPU. Keras, PyTorch and this project take turns."""
    os.environ |= {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        raise typer.BadParameter("JAX finds no GPU. Run make gpu, then use .venv-gpu/bin/python.")
    chosen = sides([*map(int, lanes.split(","))])
    cases = {f"rung {rung}": (experiment(rung), 8_000) for rung in rungs.split(",")}
    rates = {name: compare(chosen, case, turns) for name, case in cases.items()}
    report("gpu", f"Training on {device.device_kind}", "images/s, batch 32", rates)


if __name__ == "__main__":
    typer.run(main)
