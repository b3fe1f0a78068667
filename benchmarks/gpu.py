"""Training on a GPU: this project with one lane and with several, plain Keras on JAX, PyTorch.

    KERAS_BACKEND=jax .venv-gpu/bin/python -m benchmarks.gpu [--seconds 240] [--turns 3]
        [--rungs 2,5] [--lanes 1,2,5,10]

Batch 32 of 32x32 images. Each side is a process of its own, so that its memory is, and they run
one after the other, so that each has the card to itself: the most telling first, and no more of
them than the time allows.
"""

import argparse
import contextlib
import gzip
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks import sides
from resnet import DETERMINISM, UserError, config

BATCH, IMAGES = 32, 10_000
ANSWER = b"figures: "
"""How a line starts by which a side answers; libraries may print others."""
WAY_OUT = "make gpu; KERAS_BACKEND=jax .venv-gpu/bin/python -m benchmarks.gpu"


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (IMAGES, 32, 32, 3), "uint8")
    return pixels, generator.integers(0, 10, IMAGES)


def chosen(rungs: str) -> list[str]:
    return config.select(rungs, config.find(), "--rungs")


def experiment(options: argparse.Namespace) -> config.Experiment:
    rung = config.load(config.find()[chosen(options.rungs)[0]])
    for change in options.set:
        rung = config.change(rung, config.parse_override(change), "--set")
    return rung


def rates(work: Callable[[], float], turns: int) -> list[float]:
    """How much a second was done in every turn.

    Args:
        work: does one portion and returns its amount (images, say). It has compiled.
        turns: how often.
    """
    measured = []
    for _ in range(turns):
        began = time.perf_counter()
        amount = work()
        measured.append(amount / (time.perf_counter() - began))
    return measured


# -- what a process of its own measures -----------------------------------------------------------

Figures = Iterator[dict[str, Any]]
"""Some at a time: what fails later, or lasts too long, does not take those that came before."""


def card(options: argparse.Namespace) -> Figures:
    """What the device is, and at how many bytes/s it copies, those read and those written."""
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

    bandwidth = statistics.median(rates(work, 5))

    from resnet.numerics import numerics

    facts = {"device": device.device_kind, "precision": numerics()["precision"]}
    facts["platform"] = " ".join(device.client.platform_version.split())
    if not options.cpu:
        facts |= driver()
    yield {"bandwidth": bandwidth, "facts": facts}


def driver() -> dict[str, str]:
    """The version of NVIDIA's driver, where its program tells it."""
    if not (program := shutil.which("nvidia-smi")):
        return {}
    query = ["--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            [program, *query], capture_output=True, text=True, check=True, timeout=10
        )
        return {"driver": told.stdout.partition("\n")[0].strip()}
    return {}


def this_project(options: argparse.Namespace) -> Figures:
    """Lanes of one program, each with a network of its own and in a thread of its own."""
    import jax

    from resnet import layers, models
    from resnet.program import Program
    from resnet.steps import groups
    from resnet.training import Plan

    layers.PIXELS = options.pixels or layers.PIXELS
    rung, lanes = experiment(options), int(options.lanes)
    program = Program(*images(), 10, rung.data.pixel_scale, lanes)
    networks = [models.build(rung.model, (32, 32, 3), 10, seed) for seed in range(lanes)]
    start = time.time() - options.began
    # a call on an accelerator is always of as many steps
    steps = math.ceil(options.steps / program.per_call) * program.per_call

    def trainer(seed: int) -> Callable[[int], None]:
        of_lane = program.lane()(networks[seed], rung)
        epoch = Plan.make(rung, IMAGES, (32, 32), seed).batches(0)
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
        yield {"rates": rates(work, options.turns), "start_s": start, "compile_s": compiling}
        memory = jax.devices()[0].memory_stats() or {}
        yield {"peak_bytes": memory.get("peak_bytes_in_use")}
        traced = trace(lambda: work(program.per_call))
    yield kernels(traced, program.per_call)
    yield {"step_bytes": step_bytes(program, rung.data.augmentation is not None)}


def trace(work: Callable[[], Any]) -> list[dict[str, Any]]:
    """What JAX's profiler saw of some work: events as Chrome's tracing has them."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def kernels(events: list[dict[str, Any]], steps: int) -> dict[str, float | None]:
    """Kernels a step, copies among them, and milliseconds in which they ran; None without a GPU.

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
    """Bytes that a step of all lanes reads and writes, as XLA estimates them.

    A loop's body counts once, however often it runs, and so does a step of many. Of the images all
    are counted, 31 MB.

    Args:
        program: a :class:`resnet.program.Program` that has compiled.
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
    """Bytes of what calls of libraries, cuBLAS say, take and give; XLA's analysis leaves them out.

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


def plain_keras(options: argparse.Namespace) -> Figures:
    """Stock layers and ``fit``, timed from epoch's end to epoch's end: its own end may nap."""
    # it promises no exact resume and may have the fastest kernels
    flags = os.environ["XLA_FLAGS"].replace(f"{DETERMINISM}=true", f"{DETERMINISM}=false")
    os.environ["XLA_FLAGS"] = flags
    import keras

    from resnet import models

    rung, count = experiment(options), options.steps * BATCH
    raw, classes = images()
    some = np.resize(np.arange(IMAGES), count)
    x, y = raw[some].astype("float32") / 255, keras.utils.to_categorical(classes[some], 10)
    network = models.stock(models.build(rung.model, (32, 32, 3), 10, seed=0))
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    ends: list[float] = []

    def end(epoch: int, logs: dict) -> None:
        float(logs["loss"])  # waits for the device
        ends.append(time.perf_counter())

    told = keras.callbacks.LambdaCallback(on_epoch_end=end)
    network.fit(
        x, y, batch_size=BATCH, epochs=1 + options.turns, verbose=0, callbacks=[told]
    )  # the first one compiles
    yield {"rates": (count / np.diff(ends)).tolist()}


def pytorch(options: argparse.Namespace, compiled: bool) -> Figures:
    """PyTorch, its images on the card; compiled by Inductor into CUDA graphs, or eager."""
    import torch
    from torch import nn

    from benchmarks.torch_network import residual_network

    if not torch.cuda.is_available():
        raise SystemExit("PyTorch has no CUDA here")
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX has it
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = experiment(options).model
    if not isinstance(model, config.Residual):
        raise SystemExit("there is no VGG in PyTorch here")
    layout = torch.channels_last if compiled else torch.contiguous_format
    network = residual_network(model.identity_blocks, model.dropout)
    network = network.to("cuda", memory_format=layout)
    fused = True if compiled else None  # eager as it comes
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, eps=1e-7, fused=fused)
    loss = nn.CrossEntropyLoss()
    forward = torch.compile(network, mode="reduce-overhead") if compiled else network
    raw, classes = images()
    x = torch.from_numpy(raw).to("cuda").permute(0, 3, 1, 2).float() / 255
    x, y = x.contiguous(memory_format=layout), torch.from_numpy(classes).to("cuda")
    starts = list(islice(cycle(range(0, IMAGES - BATCH + 1, BATCH)), options.steps))

    def work() -> float:
        for i in starts:
            if compiled:
                torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad()
            loss(forward(x[i : i + BATCH]), y[i : i + BATCH]).backward()
            optimizer.step()
        torch.cuda.synchronize()
        return len(starts) * BATCH

    work()  # compiles
    yield {"rates": rates(work, options.turns)}


KINDS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "card": card,
    "this project": this_project,
    "plain Keras": plain_keras,
    "PyTorch eager": lambda options: pytorch(options, compiled=False),
    "PyTorch compiled": lambda options: pytorch(options, compiled=True),
}


# -- all of them, and their table -----------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One of :data:`KINDS`; ``pixels`` is 0 for as many as this project sums up by itself."""

    kind: str
    rung: str
    lanes: int = 1
    pixels: int = 0

    @property
    def name(self) -> str:
        """Without the rung."""
        if self.kind != "this project":
            return self.kind
        lanes = f"{self.lanes} lane" + "s" * (self.lanes > 1)
        return f"{self.kind}, {lanes}" + f", {self.pixels:,} pixels" * bool(self.pixels)


def planned(rungs: list[str], lanes: list[int], pixels: list[int]) -> Iterator[Side]:
    """All sides, the most telling first."""
    first = [count for count in lanes if count in (1, 5)]
    for those in (first, [count for count in lanes if count not in first]):
        for rung in rungs:
            for count in those:
                yield from (Side("this project", rung, count, number) for number in pixels)
        if those is first:
            yield from (Side(kind, rung) for rung in rungs for kind in list(KINDS)[2:])


def run(side: Side, options: argparse.Namespace, seconds: float) -> tuple[dict[str, Any], str]:
    """What a side measured in a process of its own, and why that is not all; empty if it is.

    Args:
        side: which.
        options: of this command.
        seconds: how long it may take.
    """
    out_of_time = f"the {options.seconds:.0f} s were used up"
    if seconds <= 0:
        return {}, out_of_time
    values = {"side": side.kind, "rungs": side.rung, "lanes": side.lanes, "pixels": side.pixels}
    values |= {"steps": options.steps, "turns": options.turns, "began": time.time()}
    arguments = [f"--{key}={value}" for key, value in values.items()]
    arguments += [f"--set={change}" for change in options.set] + ["--cpu"] * options.cpu
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    found, reason = dict[str, Any](), ""
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds)
        out = done.stdout
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            reason = told[0] if told else f"it ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        out, reason = error.stdout or b"", out_of_time
    for line in out.splitlines(keepends=True):
        if line.startswith(ANSWER) and line.endswith(b"\n"):
            found |= json.loads(line.removeprefix(ANSWER))
    return found, reason


def row(side: Side, found: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """What a side measured, and what follows from it; None where it has no such figure."""
    median = statistics.median(found["rates"])
    seconds = side.lanes * BATCH / median
    moved = found.get("step_bytes")
    return {
        "rung": side.rung,
        "side": side.name,
        "lanes": side.lanes,
        "images_per_second": median,
        "step_ms": seconds * 1e3,
        "bandwidth_share": moved and moved / seconds / bandwidth,
        **found,
    }


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "step_ms": ("ms a step", "{:.2f}".format),
    "kernels": ("kernels", "{:,.0f}".format),
    "kernel_ms": ("their ms", "{:.2f}".format),
    "step_bytes": ("MB moved", lambda value: f"{value / 1e6:,.0f}"),
    "bandwidth_share": ("of a copy's rate", "{:.0%}".format),
    "peak_bytes": ("peak MiB", lambda value: f"{value / 2**20:,.0f}"),
    "start_s": ("start, s", "{:.0f}".format),
    "compile_s": ("compile, s", "{:.0f}".format),
}
"""By a row's key, the column's title and how its value is written."""


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The sides' lines, rung by rung."""
    titles = [title for title, _ in COLUMNS.values()]
    base = {r["rung"]: r["images_per_second"] for r in rows if r["side"] == "plain Keras"}
    lines = [
        f"| | side | images/s | range | against plain Keras | {' | '.join(titles)} |",
        f"| --- | --- |{' ---: |' * (3 + len(titles))}",
    ]
    for r in sorted(rows, key=lambda r: (r["rung"], r["side"] != "plain Keras", r["lanes"])):
        median, least, most = r["images_per_second"], min(r["rates"]), max(r["rates"])
        ratio = f"{median / base[r['rung']]:.2f} x" if r["rung"] in base else "-"
        values = ((r.get(key), form) for key, (_, form) in COLUMNS.items())
        cells = ["-" if value is None else form(value) for value, form in values]
        lines.append(
            f"| rung {r['rung']} | {r['side']} | {median:,.0f} | {least:,.0f} to {most:,.0f} "
            f"| {ratio} | {' | '.join(cells)} |"
        )
    return lines


def notes(bandwidth: float, facts: dict[str, str], left_out: dict[str, list[str]]) -> list[str]:
    """What belongs to the table.

    Args:
        bandwidth: of a copy, bytes/s.
        facts: of the card.
        left_out: by reason, the sides.
    """
    return [
        "Images/s are of all lanes together, a step is one of each. This project augments on the "
        "card, as the rung says, and keeps the running loss and accuracy there; the others' images "
        "come as they are, plain Keras's out of arrays in memory, PyTorch's from the card. Only "
        "this project is held to deterministic kernels. Plain Keras: stock layers and epochs "
        "within one `fit` on JAX. PyTorch: TF32 allowed; compiled: CUDA graphs "
        '(`mode="reduce-overhead"`), channels last, fused Adam.',
        "",
        "Kernels and the time in which they run are from a trace, copies included. MB moved: what "
        "XLA's cost analysis says of a step, and the operands and results of library calls, which "
        "it leaves out; what stays in the card's cache is among them. Their share is of "
        f"{bandwidth / 1e9:,.0f} GB/s, read and written, at which the card copies. Start: until "
        "the networks are built; compile: the first call.",
        *(f"\nLeft out: {'; '.join(names)}: {reason}." for reason, names in left_out.items()),
        "",
        f"The card: {', '.join(f'{key} {value}' for key, value in facts.items())}.",
    ]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="for all sides")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250, help="a turn, of each lane")
    parser.add_argument("--rungs", default="2,5")
    parser.add_argument("--lanes", default="1,2,5,10")
    parser.add_argument("--out", type=Path, help="folder of the results")
    # several for a line each, see resnet.layers
    parser.add_argument("--pixels", default="0", help=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        chosen(options.rungs)
    except UserError as error:
        parser.error(str(error))
    if options.cpu and not (options.side or options.out):
        parser.error("--cpu: the results are a GPU's; name another folder with --out")
    return options


def main() -> None:
    options, began = parse(), time.monotonic()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # of what a side took, not of the card
    if options.cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    if options.side:
        options.pixels = int(options.pixels)
        for figures in KINDS[options.side](options):
            print(ANSWER.decode() + json.dumps(figures), flush=True)
        return

    def measure(side: Side) -> tuple[dict[str, Any], str]:
        return run(side, options, options.seconds - (time.monotonic() - began))

    rungs = [config.short(name) for name in chosen(options.rungs)]
    device, reason = measure(Side("card", rungs[0]))
    if reason:
        print(reason, file=sys.stderr)
        raise SystemExit(2)
    rows, left_out = [], dict[str, list[str]]()
    for side in planned(rungs, numbers(options.lanes), numbers(options.pixels)):
        found, reason = measure(side)
        name = f"rung {side.rung}, {side.name}"
        if "rates" in found:
            rows.append(row(side, found, device["bandwidth"]))
            rate, now = rows[-1]["images_per_second"], time.monotonic() - began
            print(f"{now:.0f} s: {name}: {rate:,.0f} images/s", file=sys.stderr)
            name = f"further figures of {name}"
        if reason:
            left_out.setdefault(reason, []).append(name)
            print(f"left out: {name}: {reason}", file=sys.stderr)
    if not rows:
        raise SystemExit("no side was measured")
    if options.out:
        sides.RESULTS = options.out
    title = "Training on a GPU"
    lines = [
        f"**{title}** (batch {BATCH}; median and range of {options.turns} turns of {options.steps} "
        "steps)",
        "",
        *table(rows),
        "",
        *notes(**device, left_out=left_out),
    ]
    told = {"title": title, "unit": "images/s", "rows": rows, "left_out": left_out, "card": device}
    sides.write("gpu", told, lines)


if __name__ == "__main__":
    main()
