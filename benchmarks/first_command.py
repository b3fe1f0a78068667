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

WORDS = ["run", "1", "--profile=quick", *FAST]


def start(folder: Path) -> subprocess.Popen:
    """Starts the command on a store in a folder."""
    command = [sys.executable, "-u", ROOT / "runner.py", *WORDS]
    uri = f"--tracking-uri=sqlite:///{folder / 'mlflow.db'}"
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, uri], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def files(folder: Path) -> set[str]:
    """Lists what lies in a folder, without the names that each run and model has of its own."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {re.sub(r"m-[0-9a-f]{32}|[0-9a-f]{32}", "ID", path) for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50)
    moments = parser.parse_args().moments
    top = Path(tempfile.mkdtemp(prefix="first-"))

    def finished(folder: Path) -> tuple:
        process = start(folder)
        began = time.monotonic()
        lines = [(time.monotonic() - began, line) for line in process.stdout or ()]
        error = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"{folder}: exit code {process.returncode}: {error}")
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        (run,) = (run for run in runs_of(uri) if run.info.status == "FINISHED")
        epoch = next(seconds for seconds, line in lines if " epoch 1/" in line)
        return record(uri, run, Path(tempfile.mkdtemp(dir=top))), files(folder), epoch

    (reference := top / "reference").mkdir()
    expected, there, epoch = finished(reference)
    repairs = 0
    for number in range(moments):
        (folder := top / f"{number}").mkdir()
        process = start(folder)
        time.sleep(epoch * (number + 0.5) / moments)
        process.kill()
        process.communicate()
        try:
            found, left, _ = finished(folder)
            assert_identical(found, expected)
            # a run that was begun and given up has a folder of its own
            if more := {path for path in left - there if "ID" not in path}:
                raise AssertionError(f"left behind: {more}")
        except (AssertionError, SystemExit, ValueError) as error:
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
