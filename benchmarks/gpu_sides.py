"""What each side of the GPU's benchmark measures, in a process of its own."""

import argparse
import contextlib
import gzip
import json
import math
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
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
    """Tells what the device is, and how many bytes/s it copies, those read and those written."""
    try:
        import keras

        backend = keras.backend.backend()
    except ImportError as error:
        raise SystemExit(f"Keras has no backend here ({error}): {WAY_OUT}") from None
    if backend != "jax":
        raise SystemExit(f"this needs Keras on JAX, and here it is on {backend}: {WAY_OUT}")
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    if device.platform == "cpu" and not options.cpu:
        raise SystemExit(f"JAX has no GPU here: {WAY_OUT}")
    x = jnp.zeros(2**22 if options.cpu else 2**27, "float32")
    copy = jax.jit(lambda values: values + 1)
    copy(x).block_until_ready()

    def work() -> float:
        copied = x
        for _ in range(20):
            copied = copy(copied)
        copied.block_until_ready()
        return 20 * 2 * x.nbytes

    bandwidth = statistics.median(rate(work) for _ in range(5))

    from resnet.training import numerics

    facts = {"device": device.device_kind, "precision": numerics()["precision"]}
    facts["platform"] = " ".join(device.client.platform_version.split())
    if not options.cpu:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
            facts["driver"] = told.stdout.partition("\n")[0].strip()
    yield {"bandwidth": bandwidth, "facts": facts}


def this_project(options: argparse.Namespace) -> Figures:
    """Trains lanes of one program, each with a network and in a thread of its own."""
    import jax

    from resnet.network import build, layers
    from resnet.training import Epochs, Program, groups

    layers.PIXELS = int(options.pixels) or layers.PIXELS
    rung, lanes = experiment(options.rungs, options.set), int(options.lanes)
    program = Program(*images(IMAGES), 10, rung.data.pixel_scale, lanes)
    networks = [build(rung.model, SHAPE, 10, seed) for seed in range(lanes)]
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
        traced = trace(lambda: work(program.per_call))
    yield kernels(traced, program.per_call)
    yield {"step_bytes": step_bytes(program, rung.data.augmentation is not None)}


def trace(work: Callable[[], Any]) -> list[dict[str, Any]]:
    """Returns what JAX's profiler saw of some work: events as Chrome's tracing has them."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def kernels(events: list[dict[str, Any]], steps: int) -> dict[str, float | None]:
    """Counts kernels a step, with copies, and milliseconds in which they ran; None without a GPU.

    Args:
        events: from :func:`trace`. A GPU is a process there and each of its streams a thread;
            further threads tell of the same time by other names.
        steps: how many were traced.
    """
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"
    }
    took = [
        e["dur"]  # microseconds
        for e in events
        if e.get("ph") == "X"
        and "GPU" in processes.get(e["pid"], "")
        and "Stream" in threads.get((e["pid"], e["tid"]), "")
    ]
    if not took:
        return {"kernels": None, "kernel_ms": None}
    return {"kernels": len(took) / steps, "kernel_ms": sum(took) / steps / 1e3}


def step_bytes(program: Any, augmented: bool) -> float | None:
    """Counts the bytes that a step of all lanes reads and writes, as XLA estimates them.

    A loop's body counts once, however often it runs, and so does a step of many. Of the images all
    are counted, 31 MB.

    Args:
        program: a :class:`resnet.training.Program` that has compiled.
        augmented: whether its batches have transforms.
    """
    shape = program.per_call, program.lanes
    transforms = np.zeros((*shape, BATCH, 8), "float32") if augmented else None
    batches = np.ones(shape, bool), np.zeros((*shape, BATCH), "int32"), transforms
    # JAX keeps what it compiled
    compiled = program._train.lower(program._state, program._data, batches).compile()
    told = (compiled.cost_analysis() or {}).get("bytes accessed")
    return told and told + library_bytes(compiled.as_text())


def library_bytes(hlo: str) -> int:
    """Counts what calls of libraries, cuBLAS say, take and give; XLA's analysis leaves them out.

    Args:
        hlo: a compiled program's text.
    """
    named = r"%([\w.-]+) = (\(.*?\)|\S+) "
    results = dict(re.findall(named + r"[\w-]+\(", hlo))

    def size(shape: str) -> int:  # of numbers alone: bytes are a place to work in
        arrays = re.findall(r"\b(?:bf|f)(\d+)\[([\d,]*)\]", shape)
        return sum(
            int(bits) // 8 * math.prod(int(n) for n in lengths.split(",") if n)
            for bits, lengths in arrays
        )

    total = 0
    for _, result, operands in re.findall(named + r"custom-call\(([^)]*)\)", hlo):
        taken = (results.get(name, "") for name in re.findall(r"%([\w.-]+)", operands))
        total += size(result) + sum(map(size, taken))
    return total


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
