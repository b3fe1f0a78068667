"""Time against the number of runs: the ladder with more seeds and processes, and the report.

    python -m benchmarks.scaling [--turns 3]

The ladder's runs are rung 1 of the quick profile for 2 epochs, on this machine or on a Ray cluster
of two nodes on it, which is up already, with an MLflow server; the report's are made up, 75 epochs
and 10,000 test images each. All take turns.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import sides
from resnet import ROOT

sys.path.insert(0, str(ROOT / "tests"))  # a real server, and the factory of known runs
from report_store import LADDER, Store, curve, right
from services import Server, copy


def run(project: Path, *arguments: str) -> tuple[float, float]:
    """Runs a command of this project; returns its seconds and peak memory (MiB)."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "runner.py", *arguments]
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise SystemExit(f"{arguments} failed: {log.read()}")
    seconds = time.perf_counter() - began
    print(f"{seconds:.1f} s: {' '.join(arguments)}", file=sys.stderr)
    return seconds, usage.ru_maxrss / 1024


def ladder(project: Path, seeds: int, jobs: int, *where: str) -> float:
    """Trains one anew; returns its seconds."""
    short = "--profile=quick", "--set=training.epochs=2"
    how = f"--seeds=0-{seeds - 1}", f"--jobs={jobs}", "--fresh"
    return run(project, "run", "1", *short, *how, *where)[0]


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """Makes a Ray cluster on this machine."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)]
    try:
        yield cluster
    finally:
        cluster.shutdown()


def stores(folder: Path) -> Iterator[tuple[int, Store]]:
    """Makes runs to report on; yields how many, and their store."""
    for runs in (5, 25, 50):
        (folder / str(runs)).mkdir()
        store = Store(folder / str(runs))
        for made in range(runs):
            rung, seed = LADDER[made % 5], made // 5
            store.add(rung, right(10_000, 8000, seed), seed=seed, history=curve(75, 0.9, 0.8))
        yield runs, store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    seconds, memory = defaultdict[tuple, list[float]](list), dict[tuple, float]()
    with tempfile.TemporaryDirectory() as folder:
        place, project = Path(folder), copy(Path(folder) / "project").parent
        reported = list(stores(place))
        os.environ["PYTHONPATH"] = str(project)  # the nodes' as well
        for turn in range(turns):
            for seeds, jobs in ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2)):
                seconds["ladder", seeds, jobs].append(ladder(project, seeds, jobs))
            (served := place / str(turn)).mkdir()
            with (
                two_nodes() as nodes,
                Server(f"sqlite:///{served / 'server.db'}", served) as server,
            ):
                where = f"--ray={nodes.address}", f"--tracking-uri={server.uri}", "--cpus-per-run=2"
                seconds["ladder, two nodes", 4, 2].append(ladder(project, 4, 2, *where))
            for runs, store in reported:
                out = f"--tracking-uri={store.uri}", f"--out={place / 'report'}"
                took, memory["report", runs, ""] = run(project, "report", *out)
                seconds["report", runs, ""].append(took)
    lines = [
        f"**Scaling** (whole commands, start included; median and range of {turns})",
        "",
        sides.row("what", "runs", "jobs", "seconds", "range", "peak MiB"),
        sides.row("---", *["---:"] * 5),
    ]
    for key, values in seconds.items():
        mib = f"{memory[key]:.0f}" if key in memory else ""
        lines.append(sides.row(*key, *sides.spread(values, ".1f"), mib))
    rows = [[*key, values, memory.get(key)] for key, values in seconds.items()]
    columns = ["what", "runs", "jobs", "seconds", "MiB"]
    sides.write("scaling", {"columns": columns, "rows": rows}, lines)


if __name__ == "__main__":
    main()
