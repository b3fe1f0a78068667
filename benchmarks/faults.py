"""Random faults over small ladders: is any run lost, does any bit differ?

    python -m benchmarks.faults --faults 200

Half of the ladders run on this machine (two processes, a database file), half on a Ray cluster of
two nodes with MLflow's server over PostgreSQL. Every ladder is compared with undisturbed runs of
the same settings. It takes hours and may itself be interrupted: what each ladder came to is kept in
``benchmarks/results/faults.json``, from which the same command goes on (without the file it begins
anew) and makes the table in ``docs/faults.md``.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.scaling import two_nodes
from benchmarks.sides import RESULTS, commit
from resnet import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # real servers, and what of a run must not differ
sys.path.insert(0, str(ROOT / "tests" / "ladder"))
from conftest import squares
from ladders import assert_identical, record, runs_of
from services import Postgres, Server, binary, copy, workers
from test_cluster import ARGUMENTS

DONE = RESULTS / "faults.json"
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


class Driver:
    """The ladder's command, started again until it has done its work."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder, self.arguments, self.log = folder, arguments, folder / "out.log"
        self.start()

    def start(self) -> None:
        command = [sys.executable, self.folder.parent / "runner.py", *ARGUMENTS, *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def epochs(self) -> int:
        """Counts those that were told."""
        return self.log.read_bytes().count(b" epoch ")


HERE: tuple[str, ...] = (
    "worker killed",
    "worker terminated",
    "driver killed",
    "driver terminated",
    "disk full",
    "clock jumped",
)
MANY = (*HERE, "node removed", "node terminated", "server stopped")


@dataclass(frozen=True)
class Scene:
    """Where ladders run, and what may befall them; by turns on this machine and on the cluster."""

    cluster: Any
    server: Server
    on_cluster: bool
    moment: random.Random

    def ladder(self, folder: Path, common: list[str]) -> tuple[str, Driver]:
        """Starts one; returns its store and it."""
        uri, further = f"sqlite:///{folder / 'mlflow.db'}", ["--jobs=2"]
        if self.on_cluster:
            uri, further = self.server.uri, [f"--ray={self.cluster.address}", "--cpus-per-run=2"]
            further += [f"--checkpoints={folder / 'checkpoints'}"]
        return uri, Driver(folder, f"--tracking-uri={uri}", *common, *further)

    def disturb(self, driver: Driver, wanted: int) -> Counter[str]:
        """Disturbs a ladder until it is done all the same; returns the faults."""
        left, restarts, counts = wanted, 0, Counter[str]()
        while True:
            until, epochs = time.monotonic() + self.moment.uniform(0, 6), driver.epochs()
            while driver.process.poll() is None and (
                time.monotonic() < until or (driver.epochs() == epochs and left)
            ):
                time.sleep(0.1)  # a fault strikes while something is going on
            code = driver.process.poll()
            if code == 0:
                return counts
            if code is not None:  # a run failed or was interrupted: the same command again
                restarts += 1
                if restarts > 10 + 2 * wanted:
                    raise SystemExit(f"{driver.folder}: exit code {code}, again and again")
                driver.start()
            elif left:
                kinds, count = MANY if self.on_cluster else HERE, self.moment.randint(1, 3)
                for kind in self.moment.sample(kinds, min(left, count)):  # seldom alone
                    if self.strike(kind, driver):
                        counts[kind] += 1
                        left -= 1
            else:
                driver.process.wait()

    def strike(self, kind: str, driver: Driver) -> bool:
        """Makes one fault; False if there was nothing to hit."""
        if driver.process.poll() is not None:
            return False
        pause = self.moment.uniform(1, 10)
        faults = Path(os.environ["FAULTS"])
        if kind.startswith("worker"):
            if not (there := workers()):
                return False
            with contextlib.suppress(psutil.Error):
                victim = self.moment.choice(there)
                victim.kill() if kind == "worker killed" else victim.terminate()
        elif kind.startswith("driver"):
            number = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM}[kind.split()[1]]
            driver.process.send_signal(number)
            driver.process.wait()
            driver.start()
        elif kind.startswith("node"):
            node = self.cluster.nodes.pop(0)
            if kind == "node terminated":
                for process in node.all_processes["raylet"]:
                    process.process.terminate()
                time.sleep(pause)
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.nodes.append(self.cluster.add_node(num_cpus=2))
        elif kind == "server stopped":
            self.server.stop()
            time.sleep(pause)
            self.server.start()
        else:  # the clock: an hour and more, there and back
            path = faults / ("full" if kind == "disk full" else "jump")
            with path.open("wb") as file:
                file.truncate(self.moment.randrange(10_000))
            time.sleep(pause)
            path.unlink()
        return True


def compare(uri: str, folder: Path, expected: dict) -> tuple[int, int]:
    """Counts differences and losses among a ladder's runs."""
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


def prepare() -> tuple[Path, list[str]]:
    """Makes the campaign's folder, and the options of every ladder in it."""
    top = Path(tempfile.mkdtemp(prefix="faults-"))
    copy(top)  # the campaign keeps its reports to itself, and the tree may change meanwhile
    (top / "sitecustomize.py").write_text(CUSTOMIZE)
    os.environ |= {"FAULTS": str(top), "COLUMNS": "200", "RAY_DEDUP_LOGS": "0"}
    os.environ["PYTHONPATH"] = str(top)
    return top, [f"--data={squares(top / 'squares')}", f"--seeds={SEEDS[0]}-{SEEDS[-1]}"]


def undisturbed(folder: Path, common: list[str]) -> dict[tuple[str, str], Any]:
    """Returns what the runs of a ladder yield to which nothing happens, by rung and seed."""
    folder.mkdir()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    if Driver(folder, f"--tracking-uri={uri}", *common).process.wait():
        raise SystemExit((folder / "out.log").read_text())
    return {
        (run.data.tags["rung"], run.data.tags["seed"]): record(uri, run, folder)
        for run in runs_of(uri)
    }


def disturbed(
    scene: Scene, folder: Path, common: list[str], wanted: int, expected: dict
) -> dict[str, Any]:
    """Disturbs a ladder so often; returns what it came to. Its folder stays if that was in vain."""
    began = time.monotonic()
    folder.mkdir()
    uri, driver = scene.ladder(folder, common)
    counts = scene.disturb(driver, wanted)
    differences, losses = compare(uri, folder, expected)
    outcome = {"runs": len(expected), "differences": differences, "losses": losses}
    if scene.on_cluster:
        forget(uri)
    if not (differences or losses):
        shutil.rmtree(folder)
    seconds = round(time.monotonic() - began)
    return {"commit": commit(), "faults": counts, **outcome, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--each", type=int, default=20, help="faults a ladder")
    wanted = parser.parse_args()
    if not binary("initdb"):
        raise SystemExit("PostgreSQL's server programs are not here")
    top, common = prepare()
    done: list[dict[str, Any]] = json.loads(DONE.read_text()) if DONE.exists() else []
    expected = undisturbed(top / "reference", common)
    with two_nodes() as cluster, Postgres() as database, Server(database.uri, top) as server:
        while (left := wanted.faults - total(done).total()) > 0:
            number = len(done)
            scene = Scene(cluster, server, bool(number % 2), random.Random(number))
            each, folder = min(wanted.each, left), top / f"ladder{number}"
            done.append(disturbed(scene, folder, common, each, expected))
            DONE.write_text(json.dumps(done, indent=1) + "\n")
            print(done[-1], flush=True)
    table = "\n".join(lines(done)) + "\n"
    (ROOT / "docs" / "faults.md").write_text(table)
    print(table)
    if any(ladder["differences"] or ladder["losses"] for ladder in done):
        raise SystemExit(f"what there is of them: {top}")
    shutil.rmtree(top)


def total(done: list[dict[str, Any]]) -> Counter[str]:
    """Counts the faults of all ladders, by kind."""
    return sum((Counter(ladder["faults"]) for ladder in done), Counter[str]())


def lines(done: list[dict[str, Any]]) -> list[str]:
    """Writes the document."""
    counts = total(done)
    sums = {key: sum(ladder[key] for ladder in done) for key in ("runs", "differences", "losses")}
    return [
        "# Random faults",
        "",
        "Written by `python -m benchmarks.faults`; changes by hand are lost.",
        "",
        f"{len(done)} ladders of {len(SEEDS) * 2} runs, in turn with `--jobs 2` on this "
        "machine and a database file and on a Ray cluster of two nodes with MLflow's server over "
        "PostgreSQL, were disturbed at random moments, by one to three faults at a time, and "
        "compared with undisturbed runs of the same settings: weights, curves and test "
        "probabilities bit for bit, no metric twice, nothing left running. A run that failed "
        "on the way, as on a full disk, was begun again by the same command; how often is not "
        "counted.",
        "",
        "| fault | times |",
        "| --- | ---: |",
        *(f"| {kind} | {counts[kind]} |" for kind in MANY),
        f"| **faults** | **{counts.total()}** |",
        *(f"| {key} | {value} |" for key, value in sums.items()),
        "",
        f"Commit {', '.join(sorted({ladder['commit'] for ladder in done}))}; "
        f"{sum(ladder['seconds'] for ladder in done) / 60:.0f} minutes on {os.cpu_count()} cores.",
    ]


if __name__ == "__main__":
    main()
