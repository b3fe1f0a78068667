"""Compares the speed of several programs, each of which is called a side.

The sides take turns, so that a disturbance slows all of them. Each side has its own process,
because libraries in one process can share thread pools.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from typing import Any

from resnet import ROOT
from resnet.host.machine import cores, instruction_set, processor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = ROOT / "benchmarks" / "results"
Turn = Callable[[], float]
"""A function that trains for one turn and returns images per second."""
Side = Callable[[Any], Turn]
"""A picklable function that takes a case, such as a rung, and returns a ``Turn`` for it."""
_turn: Turn


def rate(images: float, work: Callable[[], object]) -> float:
    """Calls ``work``, which trains on ``images`` images; returns images per second."""
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


def _prepare(side: Side, case: Any) -> None:
    global _turn
    _turn = side(case)
    _turn()  # the first turn includes compilation and is not counted


def _take() -> float:
    return _turn()


def compare(sides: Mapping[str, Side], case: Any, turns: int) -> dict[str, list[float]]:
    """Returns each side's images per second, one value per turn.

    A side that does not start is left out, and the reason is printed to stderr.
    """
    rates: dict[str, list[float]] = {}
    processes = {}
    with contextlib.ExitStack() as stack:
        for name, side in sides.items():
            processes[name] = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
            try:
                processes[name].submit(_prepare, side, case).result()
                rates[name] = []
            except Exception as error:
                print(f"{name} does not start and is left out: {error}", file=sys.stderr)
        for turn in range(turns):
            # every second turn reverses the order, so that no side always has the same predecessor
            for name in list(rates)[:: -1 if turn % 2 else 1]:
                rates[name].append(processes[name].submit(_take).result())
    return rates


def commit() -> str:
    """Returns the commit, with ``-dirty`` if files outside benchmarks/results and docs changed."""
    git = partial(subprocess.check_output, cwd=ROOT, text=True)
    changed = git(["git", "status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs"])
    return git(["git", "describe", "--always", "--exclude=*"]).strip() + "-dirty" * bool(changed)


def report(name: str, title: str, unit: str, rates: dict[str, dict[str, list[float]]]) -> None:
    """Prints a table; writes it to ``benchmarks/results/NAME.md`` and the rates to ``NAME.json``.

    ``rates`` maps each case to the result of :func:`compare`. The table divides each median by the
    first side's median and, because turns vary, also by the first side's fastest turn.
    """
    baseline = next(iter(next(iter(rates.values()))))
    best = f"{baseline}'s fastest timing"
    lines = [
        f"**{title}** ({unit}; median and range of repeated timings)\n",
        f"| | program | median | range | ratio to {baseline} | ratio to {best} |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for case, sides in rates.items():
        base, fastest = statistics.median(sides[baseline]), max(sides[baseline])
        for side, values in sides.items():
            median = statistics.median(values)
            lines.append(
                f"| {case} | {side} | {median:,.0f} | {min(values):,.0f} to {max(values):,.0f} "
                f"| {median / base:.2f} x | {median / fastest:.2f} x |"
            )
    machine = {"commit": commit(), "processor": processor(), "instructions": instruction_set()}
    machine |= {"cores": str(cores()), "python": platform.python_version()}
    for package in ("tensorflow", "keras", "jax", "torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            machine[package] = metadata.version(package)
    facts = ", ".join(f"{key} {value}" for key, value in machine.items())
    text = "\n".join(lines) + f"\n\nOn {facts}.\n"
    print(text, end="")
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    figures = {"title": title, "unit": unit, "rates": rates, "machine": machine}
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
