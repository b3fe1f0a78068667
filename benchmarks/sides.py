"""Times several sides of a comparison in one run: each in a process of its own, taking turns.

Turns rather than one side after the other, so that whatever else the machine does, and its
temperature, meets every side alike; processes, so that libraries do not share thread pools.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import psutil

from resnet import ROOT
from resnet.host.machine import instruction_set, processor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = ROOT / "benchmarks" / "results"


def parser(about: str, turns: int) -> argparse.ArgumentParser:
    """Makes that of a command which starts itself again for each side, with ``--side``."""
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--turns", type=int, default=turns)
    made.add_argument("--side", help=argparse.SUPPRESS)
    return made


def itself(*options: str) -> list[str]:
    """Returns the command that started this process, and further options, which override its."""
    return [sys.executable, *sys.orig_argv[1:], *options]


def rate(work: Callable[[], float]) -> float:
    """Times what does one portion and returns its amount, images say; returns how much a second."""
    began = time.perf_counter()
    amount = work()
    return amount / (time.perf_counter() - began)


def serve(work: Callable[[], float], finally_: Callable[[], dict] = dict) -> None:
    """Does a side's work whenever asked, and answers how much a second it did.

    Args:
        work: see :func:`rate`. Called once before the first turn, to compile and to warm up.
        finally_: further figures of this side, once its turns are over.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever libraries print must not be taken for an answer
    work()
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(rate(work), file=answers, flush=True)
    print(json.dumps(finally_()), file=answers, flush=True)


class _Process:
    """A side that serves."""

    def __init__(self, command: list[str]):
        # not a pipe, which would fill up unread; open as long as the process is
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def answer(self, question: str = "") -> str:
        assert self._process.stdin and self._process.stdout  # they are pipes
        self._process.stdin.write(question)
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> str:
        """Ends it; returns its last answer."""
        return self._process.communicate()[0]

    def reason(self) -> str:
        """Tells why it ended: the last line of what it printed."""
        self._process.wait()
        self._log.seek(0)
        return " ".join(self._log.read().strip().splitlines()[-1:])


def compare(
    sides: Iterable[str], turns: int, *options: str
) -> tuple[dict[str, list[float]], dict[str, dict]]:
    """Starts every side and lets them take turns.

    Args:
        sides: their names; for each this command is started again, with ``--side``, and serves.
        turns: how many each gets.
        *options: further ones of this command.

    Returns:
        By name, the rate of every turn, and the further figures. A side that cannot start is
        left out, with a line that says why.
    """
    processes: dict[str, _Process] = {}
    for name in sides:
        process = _Process(itself(*options, "--side", name))
        if process.answer() == "ready":
            processes[name] = process
            print(f"ready: {name}", file=sys.stderr)
        else:
            print(f"left out: {name}: {process.reason()}", file=sys.stderr)
    rates: dict[str, list[float]] = {name: [] for name in processes}
    for turn in range(turns):
        # every other round backwards, so that no side always follows the same one
        for name in list(processes)[:: 1 if turn % 2 == 0 else -1]:
            if not (answer := processes[name].answer("go\n")):
                raise SystemExit(f"{name} ended: {processes[name].reason()}")
            rates[name].append(float(answer))
    return rates, {name: json.loads(process.end()) for name, process in processes.items()}


def commit() -> str:
    """Returns this project's, ``-dirty`` if anything but results was changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    with contextlib.suppress(OSError):  # there may be no git
        if found := git("describe", "--always", "--exclude=*"):
            changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
            return found + "-dirty" * bool(changed)
    return "unknown"


def machine() -> dict[str, Any]:
    """Tells what the figures were taken on."""
    versions = {}
    for package in ("tensorflow", "keras", "jax", "torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
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


def row(*cells: object) -> str:
    """Writes a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def spread(values: list[float], form: str = ",.0f") -> tuple[str, str]:
    """Writes their median and their range."""
    return f"{statistics.median(values):{form}}", f"{min(values):{form}} to {max(values):{form}}"


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
        row("", "side", "median", "range", f"against {baseline}", "against its fastest turn"),
        row("---", "---", *["---:"] * 4),
    ]
    for group, sides in rates.items():
        base, fastest = statistics.median(sides[baseline]), max(sides[baseline])
        for side, values in sides.items():
            median = statistics.median(values)
            ratios = f"{median / base:.2f} x", f"{median / fastest:.2f} x"
            lines.append(row(group, side, *spread(values), *ratios))
    write(name, {"title": title, "unit": unit, "rates": rates}, [*lines, "", *notes])


def write(name: str, figures: dict[str, Any], lines: list[str], folder: Path = RESULTS) -> None:
    """Writes ``<name>.json`` and ``.md``, the machine with them, and prints the latter."""
    host = machine()
    told = ", ".join(f"{key} {value}" for key, value in host.items())
    text = "\n".join(lines).rstrip() + f"\n\nOn {told}.\n"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    figures = figures | {"machine": host}
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(text, end="")
