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
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.sides import commit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # real servers, and what of a run must not differ
from conftest import squares  # noqa: E402
from services import Postgres, Server, binary, copy, workers  # noqa: E402
from test_cluster import ARGUMENTS  # noqa: E402
from test_runner import assert_identical, record, runs_of  # noqa: E402

DONE = ROOT / "benchmarks" / "results" / "faults.json"
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
        self.folder, self.arguments, self.lines = folder, arguments, 0
        self.start()

    def start(self) -> None:
        runner = self.folder.parent / "runner.py"
        with (self.folder / "errors.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, runner, *ARGUMENTS, *self.arguments],
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


def strike(kind: str, driver: Driver, moment: random.Random, cluster: Any, server: Any) -> bool:
    """One fault; False if there was nothing to hit."""
    if driver.process.poll() is not None:
        return False
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


HERE: tuple[str, ...] = (
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
    uri: str,
    cluster: Any,
    server: Any,
    *arguments: str,
) -> Counter[str]:
    """Disturbs one ladder until it is done all the same; returns the faults."""
    driver = Driver(folder, f"--tracking-uri={uri}", *arguments)
    left, restarts, counts = wanted, 0, Counter[str]()
    while True:
        until, lines = time.monotonic() + moment.uniform(0, 6), driver.lines
        while driver.process.poll() is None and (
            time.monotonic() < until or (driver.lines == lines and left)
        ):
            time.sleep(0.1)  # a fault strikes while something is going on
        code = driver.process.poll()
        if code == 0:
            return counts
        if code is not None:  # a run failed or was interrupted: the same command again
            restarts += 1
            if restarts > 10 + 2 * wanted:
                raise SystemExit(f"{folder}: exit code {code}, again and again")
            driver.start()
        elif left:
            for kind in moment.sample(kinds, min(left, moment.randint(1, 3))):  # seldom alone
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
    parser.add_argument("--each", type=int, default=20, help="faults a ladder")
    wanted = parser.parse_args()
    if not binary("initdb"):
        raise SystemExit("PostgreSQL's server programs are not here")
    top = Path(tempfile.mkdtemp(prefix="faults-"))
    copy(top)  # the campaign keeps its reports to itself, and the tree may change meanwhile
    (top / "sitecustomize.py").write_text(CUSTOMIZE)
    os.environ |= {"FAULTS": str(top), "COLUMNS": "200", "RAY_DEDUP_LOGS": "0"}
    os.environ["PYTHONPATH"] = str(top)
    common = [f"--data={squares(top / 'squares')}", f"--seeds={SEEDS[0]}-{SEEDS[-1]}"]
    done: list[dict[str, Any]] = json.loads(DONE.read_text()) if DONE.exists() else []

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
        while (left := wanted.faults - total(done).total()) > 0:
            began, number = time.monotonic(), len(done)
            folder = top / f"ladder{number}"
            folder.mkdir()
            if number % 2:
                uri, kinds = server.uri, MANY
                further = [f"--ray={cluster.address}", "--cpus-per-run=2"]
                further += [f"--checkpoints={folder / 'checkpoints'}"]
            else:
                uri, kinds = f"sqlite:///{folder / 'mlflow.db'}", HERE
                further = ["--jobs=2"]
            moment = random.Random(number)
            counts = ladder(
                *(folder, kinds, moment, min(wanted.each, left), uri, cluster, server),
                *(*common, *further),
            )
            differences, losses = compare(uri, folder, expected)
            outcome = {"runs": len(expected), "differences": differences, "losses": losses}
            seconds = round(time.monotonic() - began)
            done.append({"commit": commit(), "faults": counts, **outcome, "seconds": seconds})
            DONE.write_text(json.dumps(done, indent=1) + "\n")
            print(done[-1], flush=True)
            if uri == server.uri:
                forget(uri)
            if not (differences or losses):
                shutil.rmtree(folder)
    cluster.shutdown()
    table = "\n".join(lines(done)) + "\n"
    (ROOT / "docs" / "faults.md").write_text(table)
    print(table)
    if any(ladder["differences"] or ladder["losses"] for ladder in done):
        raise SystemExit(f"what there is of them: {top}")
    shutil.rmtree(top)


def total(done: list[dict[str, Any]]) -> Counter[str]:
    """The faults of all ladders, by kind."""
    return sum((Counter(ladder["faults"]) for ladder in done), Counter[str]())


def lines(done: list[dict[str, Any]]) -> list[str]:
    """The document."""
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
