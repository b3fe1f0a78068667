"""Random faults over small ladders: is any run lost, does any bit differ?

    python -m benchmarks.faults --faults 200

Half of the ladders run on this machine (two processes, a database file), half on a Ray cluster of
two nodes with MLflow's server over PostgreSQL. Every ladder is compared with undisturbed runs of
the same settings. The table goes to ``docs/faults.md``.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # real servers, and what of a run must not differ
from services import Postgres, Server  # noqa: E402
from test_cluster import ARGUMENTS  # noqa: E402
from test_runner import assert_identical, record, runs_of  # noqa: E402

SEEDS = (0, 1)
# Every Python of a ladder imports this first: two of the faults are switched on by a file.
CUSTOMIZE = """
import errno, os, time
folder, fsync, clock = os.environ["FAULTS"], os.fsync, time.time

def full(descriptor):
    if os.path.exists(f"{folder}/full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return fsync(descriptor)

def jumping():
    try:
        return clock() + os.stat(f"{folder}/jump").st_size
    except OSError:
        return clock()

os.fsync, time.time = full, jumping
"""


def images(folder: Path) -> Path:
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 40)):
        for index in range(count):
            row, column = divmod(index % 4, 2)
            pixels = generator.integers(0, 120, (8, 8, 3), "uint8")
            pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 80
            path = folder / split / f"class{index % 4}" / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


class Driver:
    """The ladder's command, started again until it has done its work."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder, self.arguments, self.lines = folder, arguments, 0
        self.start()

    def start(self) -> None:
        with (self.folder / "errors.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "runner.py", *ARGUMENTS, *self.arguments],
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen) -> None:
        with (self.folder / "out.log").open("a") as log:
            for line in process.stdout or ():
                self.lines += " epoch " in line
                log.write(line)
                log.flush()


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::_task"):
                found.append(process)
    return found


def strike(kind: str, driver: Driver, moment: random.Random, cluster: Any, server: Any) -> bool:
    """One fault; False if there was nothing to hit."""
    pause = moment.uniform(1, 10)
    faults = Path(os.environ["FAULTS"])
    if kind.startswith("worker"):
        if not (there := workers()):
            return False
        with contextlib.suppress(psutil.Error):
            victim = moment.choice(there)
            victim.kill() if kind == "worker killed" else victim.terminate()
    elif kind.startswith("driver"):
        number = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM}[kind.split()[1]]
        driver.process.send_signal(number)
        driver.process.wait()
        driver.start()
    elif kind.startswith("node"):
        node = cluster.nodes.pop(0)
        if kind == "node terminated":
            for process in node.all_processes["raylet"]:
                process.process.terminate()
            time.sleep(pause)
        cluster.remove_node(node, allow_graceful=False)
        cluster.nodes.append(cluster.add_node(num_cpus=2))
    elif kind == "server stopped":
        server.stop()
        time.sleep(pause)
        server.start()
    elif kind == "disk full":
        (faults / "full").touch()
        time.sleep(pause)
        (faults / "full").unlink()
    else:  # an hour and more, there and back
        with (faults / "jump").open("wb") as file:
            file.truncate(moment.randrange(10_000))
        time.sleep(pause)
        (faults / "jump").unlink()
    return True


HERE = (
    "worker killed",
    "worker terminated",
    "driver killed",
    "driver terminated",
    "disk full",
    "clock jumped",
)
MANY = (*HERE, "node removed", "node terminated", "server stopped")


def ladder(
    folder: Path,
    kinds: tuple[str, ...],
    moment: random.Random,
    wanted: int,
    counts: Counter[str],
    uri: str,
    cluster: Any,
    server: Any,
    *arguments: str,
) -> None:
    driver = Driver(folder, f"--tracking-uri={uri}", *arguments)
    left, restarts = wanted, 0
    while True:
        until, lines = time.monotonic() + moment.uniform(0, 6), driver.lines
        while driver.process.poll() is None and (
            time.monotonic() < until or (driver.lines == lines and left)
        ):
            time.sleep(0.1)  # a fault strikes while something is going on
        code = driver.process.poll()
        if code == 0:
            return
        if code is not None:  # a run failed or was interrupted: the same command again
            restarts += 1
            if restarts > 10 + 2 * wanted:
                raise SystemExit(f"{folder}: exit code {code}, again and again")
            driver.start()
        elif left:
            kind = moment.choice(kinds)
            if strike(kind, driver, moment, cluster, server):
                counts[kind] += 1
                left -= 1
        else:
            driver.process.wait()


def compare(uri: str, folder: Path, expected: dict) -> tuple[int, int]:
    """Differences and losses among a ladder's runs."""
    runs = [run for run in runs_of(uri) if run.info.status == "FINISHED"]
    found = {(run.data.tags["rung"], run.data.tags["seed"]): run for run in runs}
    differences, losses = len(runs) - len(found), len(expected.keys() - found.keys())
    for key, run in found.items():
        try:
            assert_identical(record(uri, run, folder), expected[key])
        except AssertionError as error:
            print(f"{uri} {key}: {error}", flush=True)
            differences += 1
    for role in ("rung", "ladder"):
        losses += sum(run.info.status == "RUNNING" for run in runs_of(uri, role))
    return differences, losses


def forget(uri: str) -> None:
    """Makes room for the next ladder on the server."""
    from mlflow.tracking import MlflowClient

    for role in ("rung", "ladder"):
        for run in runs_of(uri, role):
            MlflowClient(uri).delete_run(run.info.run_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--each", type=int, default=10, help="faults a ladder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moment, counts = random.Random(arguments.seed), Counter[str]()
    top = Path(tempfile.mkdtemp(prefix="faults-"))
    (top / "sitecustomize.py").write_text(CUSTOMIZE)
    os.environ |= {"FAULTS": str(top), "COLUMNS": "200", "RAY_DEDUP_LOGS": "0"}
    os.environ["PYTHONPATH"] = f"{top}{os.pathsep}{ROOT}"
    common = [f"--data={images(top / 'squares')}", f"--seeds={SEEDS[0]}-{SEEDS[-1]}"]
    began, ladders, runs, differences, losses = time.monotonic(), 0, 0, 0, 0

    reference = top / "reference"
    reference.mkdir()
    uri = f"sqlite:///{reference / 'mlflow.db'}"
    if Driver(reference, f"--tracking-uri={uri}", *common).process.wait():
        raise SystemExit((reference / "errors.log").read_text())
    expected = {
        (run.data.tags["rung"], run.data.tags["seed"]): record(uri, run, reference)
        for run in runs_of(uri)
    }

    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)]
    with Postgres() as database, Server(database.uri, top) as server:
        while sum(counts.values()) < arguments.faults:
            folder = top / f"ladder{ladders}"
            folder.mkdir()
            if ladders % 2:
                uri, kinds = server.uri, tuple(MANY)
                further = [f"--ray={cluster.address}", "--cpus-per-run=2"]
                further += [f"--checkpoints={folder / 'checkpoints'}"]
            else:
                uri, kinds = f"sqlite:///{folder / 'mlflow.db'}", HERE
                further = ["--jobs=2"]
            wanted = min(arguments.each, arguments.faults - sum(counts.values()))
            ladder(folder, kinds, moment, wanted, counts, uri, cluster, server, *common, *further)
            worse, lost = compare(uri, folder, expected)
            ladders, runs = ladders + 1, runs + len(expected)
            differences, losses = differences + worse, losses + lost
            print(
                f"{time.monotonic() - began:.0f} s: {ladders} ladders, {runs} runs, "
                f"{sum(counts.values())} faults, {differences} differences, {losses} losses",
                flush=True,
            )
            if uri == server.uri:
                forget(uri)
            if not (worse or lost):
                shutil.rmtree(folder)
    cluster.shutdown()
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip() or "unknown"
    lines = [
        "# Random faults",
        "",
        "Written by `python -m benchmarks.faults`; changes by hand are lost.",
        "",
        f"{ladders} ladders of {len(expected)} runs, half of them with `--jobs 2` on this machine "
        "and a database file, half on a Ray cluster of two nodes with MLflow's server over "
        "PostgreSQL, were disturbed at random moments and compared with undisturbed runs of the "
        "same settings: weights, curves and test probabilities bit for bit, no metric twice, "
        "nothing left running.",
        "",
        "| fault | times |",
        "| --- | ---: |",
        *(f"| {kind} | {counts[kind]} |" for kind in MANY),
        f"| **faults** | **{sum(counts.values())}** |",
        f"| runs | {runs} |",
        f"| differences | {differences} |",
        f"| losses | {losses} |",
        "",
        f"Commit {commit}, seed {arguments.seed}, {(time.monotonic() - began) / 60:.0f} minutes on "
        f"{os.cpu_count()} cores.",
    ]
    (ROOT / "docs" / "faults.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if differences or losses:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
