"""What each side of the GPU's benchmark measures, in a process of its own."""

import argparse
import contextlib
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import numpy as np

from benchmarks.sides import rate
from benchmarks.subjects import BATCH, SHAPE, experiment, images, plain_keras
from resnet import DETERMINISM

IMAGES = 10_000
WAY_OUT = "make gpu; KERAS_BACKEND=jax .venv-gpu/bin/python -m benchmarks.gpu"
Figures = Iterator[dict[str, Any]]
"""Some at a time: what fails later, or lasts too long, does not take those that came before."""


def card(options: argparse.Namespace) -> Figures:
    """Tells what the device is."""
    try:
        import keras

        backend = keras.backend.backend()
    except ImportError as error:
        raise SystemExit(f"Keras has no backend here ({error}): {WAY_OUT}") from None
    if backend != "jax":
        raise SystemExit(f"this needs Keras on JAX, and here it is on {backend}: {WAY_OUT}")
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu" and not options.cpu:
        raise SystemExit(f"JAX has no GPU here: {WAY_OUT}")

    from resnet.training import numerics

    facts = {"device": device.device_kind, "precision": numerics()["precision"]}
    facts["platform"] = " ".join(device.client.platform_version.split())
    if not options.cpu:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
            facts["driver"] = told.stdout.partition("\n")[0].strip()
    yield {"facts": facts}


def this_project(options: argparse.Namespace) -> Figures:
    """Trains lanes of one program, each with a network and in a thread of its own."""
    import jax

    from resnet.network import build
    from resnet.training import Epochs, Program, groups

    rung, lanes = experiment(options.rungs, options.set), int(options.lanes)
    program = Program(*images(IMAGES), 10, rung.data.pixel_scale, lanes)
    networks = [build(rung, SHAPE, 10, seed) for seed in range(lanes)]
    start = time.time() - options.began
    # a call on an accelerator is always of as many steps
    steps = math.ceil(options.steps / program.per_call) * program.per_call

    def trainer(seed: int) -> Callable[[int], None]:
        of_lane = program.lane()(networks[seed], rung)
        epoch = Epochs.make(rung, IMAGES, SHAPE[:2], seed).batches(0)
        batches = list(islice(cycle(epoch), steps))

        def train(count: int) -> None:
            of_lane.reset()
            for first, some in groups(batches[:count], of_lane.per_call):
                of_lane.train(some, first)
            of_lane.logs()  # waits for the device

        return train

    trainers = [trainer(seed) for seed in range(lanes)]
    with ThreadPoolExecutor(lanes) as threads:

        def work(count: int = steps) -> float:
            list(threads.map(lambda train: train(count), trainers))
            return count * lanes * BATCH

        began = time.perf_counter()
        work(program.per_call)
        compiling = time.perf_counter() - began
        rates = [rate(work) for _ in range(options.turns)]
        yield {"rates": rates, "start_s": start, "compile_s": compiling}
        memory = jax.devices()[0].memory_stats() or {}
        yield {"peak_bytes": memory.get("peak_bytes_in_use")}


def plain(options: argparse.Namespace) -> Figures:
    """Trains stock layers by ``fit``, timed from epoch's end to epoch's end: its own may nap."""
    # it promises no exact resume and may have the fastest kernels
    flags = os.environ["XLA_FLAGS"].replace(f"{DETERMINISM}=true", f"{DETERMINISM}=false")
    os.environ["XLA_FLAGS"] = flags
    import keras

    network, x, y = plain_keras(experiment(options.rungs, options.set), IMAGES)
    some = np.resize(np.arange(IMAGES), options.steps * BATCH)
    ends: list[float] = []

    def end(epoch: int, logs: dict) -> None:
        float(logs["loss"])  # waits for the device
        ends.append(time.perf_counter())

    told = keras.callbacks.LambdaCallback(on_epoch_end=end)
    epochs = 1 + options.turns  # the first one compiles
    network.fit(x[some], y[some], batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[told])
    yield {"rates": (len(some) / np.diff(ends)).tolist()}


def pytorch(options: argparse.Namespace, compiled: bool) -> Figures:
    """Trains in PyTorch, images on the card; compiled by Inductor into CUDA graphs, or eager."""
    import torch

    from benchmarks.torch_network import training_step

    if not torch.cuda.is_available():
        raise SystemExit("PyTorch has no CUDA here")
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX has it
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    step = training_step(experiment(options.rungs, options.set), IMAGES, compiled, "cuda")
    starts = list(islice(cycle(range(0, IMAGES - BATCH + 1, BATCH)), options.steps))

    def work() -> float:
        for start in starts:
            step(start)
        torch.cuda.synchronize()
        return len(starts) * BATCH

    work()  # compiles
    yield {"rates": [rate(work) for _ in range(options.turns)]}


KINDS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "card": card,
    "this project": this_project,
    "plain Keras": plain,
    "PyTorch eager": lambda options: pytorch(options, compiled=False),
    "PyTorch compiled": lambda options: pytorch(options, compiled=True),
}
