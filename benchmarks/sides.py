"""Times several sides of a comparison in one run: each in a process of its own, taking turns.

Turns rather than one side after the other, so that whatever else the machine does, and its
temperature, meets every side alike; processes, so that libraries do not share thread pools.
"""

import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import psutil

from resnet.machine import instruction_set, processor

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def serve(work: Callable[[], float], finally_: Callable[[], dict] = dict) -> None:
    """A side's end: whenever asked, does the work and answers how much a second it did.

    Args:
        work: does one portion and returns its amount (images, say). Called once before the
            first turn, to compile and to warm up.
        finally_: further figures of this side, once its turns are over.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever libraries print must not be taken for an answer
    work()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        amount = work()
        print(amount / (time.perf_counter() - began), file=answers, flush=True)
    print(json.dumps(finally_()), file=answers, flush=True)


def compare(
    sides: dict[str, list[str]], turns: int
) -> tuple[dict[str, list[float]], dict[str, dict]]:
    """Starts every side and lets them take turns.

    Args:
        sides: by name, the arguments after ``python`` that start a process which serves.
        turns: how many each gets.

    Returns:
        By name, the rate of every turn, and the further figures. A side that cannot start is
        left out, with a line that says why.
    """
    processes: dict[str, tuple[subprocess.Popen[str], IO[str], IO[str], IO[str]]] = {}

    def last_of(log: IO[str]) -> str:
        log.seek(0)
        return " ".join(log.read().strip().splitlines()[-1:])

    for name, arguments in sides.items():
        # not a pipe, which would fill up unread; open as long as the process is
        log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdin and process.stdout  # they are pipes
        if process.stdout.readline().strip() == "ready":
            processes[name] = process, process.stdin, process.stdout, log
            print(f"ready: {name}", file=sys.stderr)
        else:
            process.wait()
            print(f"left out: {name}: {last_of(log)}", file=sys.stderr)
    rates: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(turns):
        # every other round backwards, so that no side always follows the same one
        for name in list(processes)[:: 1 if turn % 2 == 0 else -1]:
            _, asked, answers, log = processes[name]
            asked.write("go\n")
            asked.flush()
            if not (answer := answers.readline()):
                raise SystemExit(f"{name} ended: {last_of(log)}")
            rates[name].append(float(answer))
    further = {name: json.loads(p.communicate()[0]) for name, (p, *_) in processes.items()}
    return rates, further


def commit() -> str:
    """This project's, ``-dirty`` if anything but results was changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    with contextlib.suppress(OSError):  # there may be no git
        if found := git("describe", "--always", "--exclude=*"):
            changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
            return found + "-dirty" * bool(changed)
    return "unknown"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    versions = {}
    for package in ("tensorflow", "keras", "jax", "torch", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit(),
        "processor": processor(),
        "instructions": instruction_set(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def report(
    name: str,
    title: str,
    unit: str,
    rates: dict[str, dict[str, list[float]]],
    baseline: str,
    notes: tuple[str, ...] = (),
) -> None:
    """Writes the timings and their table, and prints the table.

    Ratios are of medians, and of the side's median to the baseline's fastest turn: a side may
    have turns of two kinds, and its median then lies on either.

    Args:
        name: of the files.
        title: of the table.
        unit: of the rates.
        rates: by row group (such as a rung), by side, the rate of every turn.
        baseline: the side that ratios are taken against.
        notes: lines below the table.
    """
    lines = [
        f"**{title}** ({unit}; median and range over the turns)",
        "",
        f"| | side | median | range | against {baseline} | against its fastest turn |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for group, sides in rates.items():
        base, fastest = statistics.median(sides[baseline]), max(sides[baseline])
        for side, values in sides.items():
            median = statistics.median(values)
            lines.append(
                f"| {group} | {side} | {median:,.0f} | {min(values):,.0f} to {max(values):,.0f} "
                f"| {median / base:.2f} x | {median / fastest:.2f} x |"
            )
    write(name, {"title": title, "unit": unit, "rates": rates}, [*lines, "", *notes])


def write(name: str, figures: dict[str, Any], lines: list[str]) -> None:
    """Writes ``results/<name>.json`` and ``.md``, the machine with them, and prints the latter."""
    host = machine()
    told = ", ".join(f"{key} {value}" for key, value in host.items())
    text = "\n".join(lines).rstrip() + f"\n\nOn {told}.\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    figures = figures | {"machine": host}
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(text, end="")
