"""Training on a GPU: this project with one lane and with several, plain Keras on JAX, PyTorch.

    KERAS_BACKEND=jax .venv-gpu/bin/python -m benchmarks.gpu [--seconds 240] [--turns 3]
        [--rungs 2,5] [--lanes 1,2,5,10]

Batch 32 of 32x32 images. Each side is a process of its own, so that its memory is, and they run
one after the other, so that each has the card to itself: the most telling first, and no more of
them than the time allows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import sides
from benchmarks.gpu_sides import KINDS
from benchmarks.subjects import BATCH
from resnet import UserError
from resnet.host.shell import count
from resnet.study import Study, select, short

ANSWER = b"figures: "
"""How a line starts by which a side answers; libraries may print others."""


@dataclass(frozen=True)
class Side:
    """One of :data:`KINDS`."""

    kind: str
    rung: str
    lanes: int = 1

    @property
    def name(self) -> str:
        """Without the rung."""
        if self.kind != "this project":
            return self.kind
        return f"{self.kind}, {count(self.lanes, 'lane')}"


def planned(rungs: list[str], lanes: list[int]) -> Iterator[Side]:
    """Yields all sides, the most telling first."""
    first = [number for number in lanes if number in (1, 5)]
    for those in (first, [number for number in lanes if number not in first]):
        yield from (Side("this project", rung, number) for rung in rungs for number in those)
        if those is first:
            yield from (Side(kind, rung) for rung in rungs for kind in list(KINDS)[2:])


def run(side: Side, options: argparse.Namespace, seconds: float) -> tuple[dict[str, Any], str]:
    """Runs a side in a process of its own; its figures, and why they are not all, or nothing.

    Args:
        side: which.
        options: of this command.
        seconds: how long it may take.
    """
    out_of_time = f"the {options.seconds:.0f} s were used up"
    if seconds <= 0:
        return {}, out_of_time
    values = {"side": side.kind, "rungs": side.rung, "lanes": side.lanes, "began": time.time()}
    command = sides.itself(*(f"--{key}={value}" for key, value in values.items()))
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


def row(side: Side, found: dict[str, Any]) -> dict[str, Any]:
    """Adds to a side's figures what follows from them."""
    median = statistics.median(found["rates"])
    return {
        "rung": side.rung,
        "side": side.name,
        "lanes": side.lanes,
        "images_per_second": median,
        "step_ms": side.lanes * BATCH / median * 1e3,
        **found,
    }


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "step_ms": ("ms a step", "{:.2f}".format),
    "peak_bytes": ("peak MiB", lambda value: f"{value / 2**20:,.0f}"),
    "start_s": ("start, s", "{:.0f}".format),
    "compile_s": ("compile, s", "{:.0f}".format),
}
"""By a row's key, the column's title and how its value is written."""


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Writes the sides' lines, rung by rung."""
    titles = ["images/s", "range", "against plain Keras", *(title for title, _ in COLUMNS.values())]
    base = {r["rung"]: r["images_per_second"] for r in rows if r["side"] == "plain Keras"}
    lines = [sides.row("", "side", *titles), sides.row("---", "---", *["---:"] * len(titles))]
    for r in sorted(rows, key=lambda r: (r["rung"], r["side"] != "plain Keras", r["lanes"])):
        ratio = f"{r['images_per_second'] / base[r['rung']]:.2f} x" if r["rung"] in base else "-"
        values = ((r.get(key), form) for key, (_, form) in COLUMNS.items())
        cells = ["-" if value is None else form(value) for value, form in values]
        name = f"rung {r['rung']}", r["side"]
        lines.append(sides.row(*name, *sides.spread(r["rates"]), ratio, *cells))
    return lines


def notes(facts: dict[str, str], left_out: dict[str, list[str]]) -> list[str]:
    """Writes what belongs to the table.

    Args:
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
        "Start: until the networks are built; compile: the first call.",
        *(f"\nLeft out: {'; '.join(names)}: {reason}." for reason, names in left_out.items()),
        "",
        f"The card: {', '.join(f'{key} {value}' for key, value in facts.items())}.",
    ]


def parse() -> argparse.Namespace:
    parser = sides.parser(__doc__, turns=3)
    parser.add_argument("--seconds", type=float, default=240, help="for all sides")
    parser.add_argument("--steps", type=int, default=250, help="a turn, of each lane")
    parser.add_argument("--rungs", default="2,5")
    parser.add_argument("--lanes", default="1,2,5,10")
    parser.add_argument("--out", type=Path, default=sides.RESULTS, help="folder of the results")
    parser.add_argument("--set", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        options.chosen = [short(n) for n in select(options.rungs, Study.open().files)]
    except UserError as error:
        parser.error(str(error))
    if options.cpu and options.out == sides.RESULTS and not options.side:
        parser.error("--cpu: the results are a GPU's; name another folder with --out")
    return options


def main() -> None:
    options, began = parse(), time.monotonic()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # of what a side took, not of the card
    if options.cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    if options.side:
        for figures in KINDS[options.side](options):
            print(ANSWER.decode() + json.dumps(figures), flush=True)
        return

    def measure(side: Side) -> tuple[dict[str, Any], str]:
        return run(side, options, options.seconds - (time.monotonic() - began))

    device, reason = measure(Side("card", options.chosen[0]))
    if reason:
        print(reason, file=sys.stderr)
        raise SystemExit(2)
    rows, left_out = [], dict[str, list[str]]()
    for side in planned(options.chosen, [*map(int, options.lanes.split(","))]):
        found, reason = measure(side)
        name = f"rung {side.rung}, {side.name}"
        if "rates" in found:
            rows.append(row(side, found))
            rate, now = rows[-1]["images_per_second"], time.monotonic() - began
            print(f"{now:.0f} s: {name}: {rate:,.0f} images/s", file=sys.stderr)
            name = f"further figures of {name}"
        if reason:
            left_out.setdefault(reason, []).append(name)
            print(f"left out: {name}: {reason}", file=sys.stderr)
    if not rows:
        raise SystemExit("no side was measured")
    title = "Training on a GPU"
    how = f"batch {BATCH}; median and range of {options.turns} turns of {options.steps} steps"
    told = {"title": title, "unit": "images/s", "rows": rows, "left_out": left_out, "card": device}
    lines = [f"**{title}** ({how})", "", *table(rows), "", *notes(**device, left_out=left_out)]
    sides.write("gpu", told, lines, options.out)


if __name__ == "__main__":
    main()
