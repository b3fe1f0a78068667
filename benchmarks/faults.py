"""Causes random faults while small ladders train, and counts lost runs and changed results.

    python -m benchmarks.faults --database postgresql+psycopg2://USER:PASSWORD@HOST/NAME

Every second ladder trains on a Ray cluster of two nodes and uses MLflow's server. The others train
in two processes without a cluster, and use a database file. ``results/faults.json`` in this folder
keeps the outcome of each ladder. After an interruption, the same command continues the test.
"""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import psutil
import typer

from benchmarks.sides import RESULTS, commit
from report.presentation import ui
from resnet import ROOT

DONE, PAGE = RESULTS / "faults.json", ROOT / "docs" / "faults.md"
LADDER = [sys.executable, f"{ROOT}/runner.py", "run", "2,5", "--profile=quick", "--seeds=0-1"]
LADDER += ["--set=training.epochs=20"]
SIGNALS = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM}
HERE = [f"{process} {how}" for process in ("worker", "driver") for how in SIGNALS]
HERE += ["disk full", "clock jumped"]
CLUSTER = [*HERE, "node removed", "node terminated", "server stopped"]
# Every Python process of a ladder runs this code first. While a file named "disk" exists, the disk
# seems full. While a file named "clock" exists and has N bytes, time.time() is N seconds ahead.
CUSTOMIZE = """
import errno, os, time
folder, fsync, clock = os.environ["PYTHONPATH"], os.fsync, time.time

def full(descriptor):
    if os.path.exists(f"{folder}/disk"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return fsync(descriptor)

def jumping():
    try:
        return clock() + os.stat(f"{folder}/clock").st_size
    except OSError:
        return clock()

os.fsync, time.time = full, jumping
"""


class Cluster:
    """A Ray cluster of two nodes on this machine, and an MLflow server with its database."""

    def __init__(self, database: str):
        from ray.cluster_utils import Cluster as RayCluster

        self.ray: Any = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.ray.add_node(num_cpus=2) for _ in range(2)]
        self.database, self.server = database, contextlib.ExitStack()
        self.uri = self.server.enter_context(ui.served(database))[0]


class Ladder:
    """A process that trains a ladder, on a Ray cluster unless ``cluster`` is None."""

    def __init__(self, folder: Path, seed: int, cluster: Any):
        folder.mkdir()
        self.log, self.random, self.cluster = folder / "out.log", random.Random(seed), cluster
        self.uri, options = f"sqlite:///{folder}/mlflow.db", ["--jobs=2"]
        if cluster:
            self.uri, options = cluster.uri, [f"--ray={cluster.ray.address}", "--cpus-per-run=2"]
            options += [f"--checkpoints={folder}"]
        self.command = [*LADDER, *options, f"--tracking-uri={self.uri}"]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def disturb(self, wanted: int) -> Counter[str]:
        """Causes up to ``wanted`` faults until the ladder ends; counts the faults of each kind."""
        counts = Counter[str]()
        while (code := self.process.poll()) != 0:
            if code is not None:  # the ladder's process failed or was interrupted
                self.start()
            elif left := wanted - counts.total():
                count = min(left, self.random.randint(1, 3))
                for kind in self.random.sample(CLUSTER if self.cluster else HERE, count):
                    counts[kind] += self.strike(kind)
            until = time.monotonic() + self.random.uniform(0, 6)
            epochs = self.log.read_text().count(" epoch ")  # no fault before the next epoch ends
            while self.process.poll() is None and (
                time.monotonic() < until or self.log.read_text().count(" epoch ") == epochs
            ):
                time.sleep(0.1)
        return counts

    def strike(self, kind: str) -> bool:
        """Causes one fault. Returns False if there is no process to disturb."""
        (target, how), seconds = kind.split(), self.random.uniform(1, 10)
        if self.process.poll() is not None:
            return False
        if target == "worker":
            with contextlib.suppress(psutil.Error, IndexError):
                found = psutil.Process().children(recursive=True)
                workers = [process for process in found if process.name().startswith("ray::_task")]
                self.random.choice(workers).send_signal(SIGNALS[how])
                return True
            return False
        if target == "driver":
            self.process.send_signal(SIGNALS[how])
            self.process.wait()
            self.start()
        elif target in ("disk", "clock"):
            Path(target).write_bytes(bytes(self.random.randrange(10_000)))
            time.sleep(seconds)
            Path(target).unlink()
        elif target == "server":
            self.cluster.server.close()
            time.sleep(seconds)
            port = urlsplit(self.cluster.uri).port
            self.cluster.server.enter_context(ui.served(self.cluster.database, port))
        elif target == "node":
            node = self.cluster.nodes.pop(0)
            if how == "terminated":
                for process in node.all_processes["raylet"]:
                    process.process.terminate()
                time.sleep(seconds)
            self.cluster.ray.remove_node(node, allow_graceful=False)
            self.cluster.nodes.append(self.cluster.ray.add_node(num_cpus=2))
        return True


def digest(run: Any) -> str:
    """Returns the SHA-256 of a run's curves, weights and test probabilities."""
    client, found = mlflow.MlflowClient(), hashlib.sha256()
    for key in sorted(run.data.metrics):
        if not key.startswith("system/") and not key.endswith(("_second", "_seconds")):
            history = client.get_metric_history(run.info.run_id, key)
            found.update(repr([key, sorted((m.step, m.value) for m in history)]).encode())
    source = f"source_run_id = '{run.info.run_id}'"
    experiments = [run.info.experiment_id]
    for model in mlflow.search_logged_models(experiments, source, output_format="list"):
        for weights in mlflow.keras.load_model(model.model_uri).get_weights():
            found.update(weights.tobytes())
    path = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/test_probabilities.npy")
    return hashlib.sha256(found.digest() + Path(path).read_bytes()).hexdigest()


def outcome(ladder: Ladder) -> Counter[tuple[str, ...]]:
    """Counts finished runs by (rung, seed, digest) and running runs by id; deletes all runs."""
    mlflow.set_tracking_uri(ladder.uri)
    found = Counter[tuple[str, ...]]()
    for run in mlflow.search_runs(experiment_names=["resnet-ladder"], output_format="list"):
        if run.info.status == "RUNNING":
            found[(run.info.run_id,)] += 1
        elif run.info.status == "FINISHED" and run.data.tags["role"] == "rung":
            found[run.data.tags["rung"], run.data.tags["seed"], digest(run)] += 1
        mlflow.delete_run(run.info.run_id)
    return found


def write(done: list[dict[str, Any]]) -> None:
    """Writes each ladder's outcome to ``results/faults.json``, and the totals to docs/faults.md."""
    DONE.write_text(json.dumps(done, indent=1) + "\n")
    counts = sum((Counter(ladder["faults"]) for ladder in done), Counter[str]())
    rows: dict[str, Any] = {kind: counts[kind] for kind in CLUSTER}
    rows |= {"**faults**": f"**{counts.total()}**", "ladders": len(done)}
    rows |= {key: sum(ladder[key] for ladder in done) for key in ("runs", "differences", "losses")}
    rows["minutes"] = round(sum(ladder["seconds"] for ladder in done) / 60)
    rows["commits"] = ", ".join(sorted({ladder["commit"] for ladder in done}))
    text = PAGE.read_text().partition("| fault |")[0] + "| fault | times |\n| --- | ---: |\n"
    PAGE.write_text(text + "".join(f"| {name} | {value} |\n" for name, value in rows.items()))


def main(faults: int = 200, database: str = "") -> None:
    """Causes FAULTS faults, up to 20 per ladder. Without DATABASE, MLflow's server uses SQLite."""
    done: list[dict[str, Any]] = json.loads(DONE.read_text()) if DONE.exists() else []
    top = Path(tempfile.mkdtemp(prefix="faults-"))
    (top / "sitecustomize.py").write_text(CUSTOMIZE)
    os.environ |= {"PYTHONPATH": str(top), "COLUMNS": "200", "RAY_DEDUP_LOGS": "0"}
    os.chdir(top)
    undisturbed = Ladder(top / "undisturbed", 0, None)
    if undisturbed.process.wait():
        raise SystemExit(undisturbed.log.read_text())
    expected, cluster = outcome(undisturbed), Cluster(database or f"sqlite:///{top}/server.db")
    while (left := faults - sum(sum(ladder["faults"].values()) for ladder in done)) > 0:
        number, began = len(done), time.monotonic()
        ladder = Ladder(top / f"ladder{number}", number, cluster if number % 2 else None)
        counts, found = ladder.disturb(min(20, left)), outcome(ladder)
        made = {"commit": commit(), "faults": counts, "runs": len(expected)}
        made |= {"differences": (found - expected).total(), "losses": (expected - found).total()}
        done.append(made | {"seconds": round(time.monotonic() - began)})
        write(done)
        print(ladder.log, done[-1], flush=True)
    cluster.server.close()
    cluster.ray.shutdown()


if __name__ == "__main__":
    typer.run(main)
