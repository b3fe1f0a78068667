"""SIGKILL in the first command of an empty folder: does anybody have to repair anything?

    python -m benchmarks.first_command --moments 50

At each of so many moments, spread evenly from the start of the process to the end of the first
epoch, the first command in an empty folder is killed. Then the same command runs to its end, and
what it leaves is compared with an undisturbed command: weights, curves and test probabilities bit
for bit, and no file that the undisturbed one does not leave.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sides import RESULTS, commit
from resnet import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # what of a run must not differ
from ladders import FAST, assert_identical, record, runs_of

WORDS = [sys.executable, "-u", ROOT / "runner.py", "run", "1", "--profile=quick", *FAST]


def start(folder: Path) -> subprocess.Popen:
    """Starts the command on a store in a folder."""
    return subprocess.Popen(
        [*WORDS, f"--tracking-uri=sqlite:///{folder / 'mlflow.db'}"],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(folder: Path) -> tuple[tuple, set[str], float]:
    """Runs the command to its end; returns its run, its files, and the seconds to its epoch."""
    process, began, epoch, lines = start(folder), time.monotonic(), 0.0, []
    for line in process.stdout or ():
        lines.append(line)
        epoch = epoch or (time.monotonic() - began) * (" epoch 1/" in line)
    if process.wait():
        raise AssertionError(f"exit code {process.returncode}: {''.join(lines)}")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    (run,) = (run for run in runs_of(uri) if run.info.status == "FINISHED")
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    files = {path for path in paths if not re.search("[0-9a-f]{32}", path)}  # of runs and models
    return record(uri, run, Path(tempfile.mkdtemp())), files, epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50)
    moments, top = parser.parse_args().moments, Path(tempfile.mkdtemp(prefix="first-"))
    (top / "reference").mkdir()
    expected, there, epoch = finished(top / "reference")
    repairs = 0
    for number in range(moments):
        (folder := top / f"{number}").mkdir()
        process = start(folder)
        time.sleep(epoch * (number + 0.5) / moments)
        process.kill()
        process.communicate()
        try:
            found, files, _ = finished(folder)
            assert_identical(found, expected)
            assert files <= there, files - there
        except (AssertionError, ValueError) as error:
            repairs += 1
            print(f"moment {number}: {error}", flush=True)
    table = f"""\
**The first command of an empty folder, killed**

| moments, from the start to {epoch:.1f} s | to be repaired by hand | commit |
| ---: | ---: | --- |
| {moments} | {repairs} | {commit()} |
"""
    (RESULTS / "first_command.md").write_text(table)
    print(table)
    if repairs:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
