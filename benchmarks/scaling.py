"""Time against the number of runs: the ladder with more seeds and processes, and the report.

    python -m benchmarks.scaling [--turns 3]

The ladder's runs are rung 1 of the quick profile for 2 epochs, on this machine or on a Ray cluster
of two nodes on it, which is up already, with an MLflow server; the report's are made up, 75 epochs
and 10,000 test images each. All take turns.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sides import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # a real server, and the factory of known runs
from report_store import LADDER, Store, curve, right  # noqa: E402
from services import Server, copy  # noqa: E402


def run(project: Path, *arguments: str) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command of this project."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=project, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise SystemExit(f"{arguments} failed: {log.read()}")
    seconds = time.perf_counter() - began
    print(f"{seconds:.1f} s: {' '.join(arguments)}", file=sys.stderr)
    return seconds, usage.ru_maxrss / 1024


def ladder(project: Path, seeds: int, jobs: int, *where: str) -> float:
    """Seconds of one that is trained anew."""
    return run(
        project,
        "runner.py",
        "--ladder=1",
        "--profile=quick",
        "--set=training.epochs=2",
        f"--seeds=0-{seeds - 1}",
        f"--jobs={jobs}",
        "--fresh",
        *where,
    )[0]


@contextlib.contextmanager
def cluster(folder: Path, project: Path) -> Iterator[list[str]]:
    """The options for two nodes and a server."""
    from ray.cluster_utils import Cluster

    folder.mkdir()
    os.environ["PYTHONPATH"] = str(project)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes.add_node(num_cpus=2)
    nodes.add_node(num_cpus=2)
    try:
        with Server(f"sqlite:///{folder / 'server.db'}", folder) as server:
            yield [f"--ray={nodes.address}", f"--tracking-uri={server.uri}", "--cpus-per-run=2"]
    finally:
        nodes.shutdown()


def stores(folder: Path) -> Iterator[tuple[int, Store]]:
    """Runs to report on, and how many."""
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
        for turn in range(turns):
            for seeds, jobs in ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2)):
                seconds["ladder", seeds, jobs].append(ladder(project, seeds, jobs))
            with cluster(place / str(turn), project) as where:
                seconds["ladder, two nodes", 4, 2].append(ladder(project, 4, 2, *where))
            for runs, store in reported:
                out = (f"--tracking-uri={store.uri}", f"--out={place / 'report'}")
                took, memory["report", runs, ""] = run(project, "-m", "report", *out)
                seconds["report", runs, ""].append(took)
    lines = [
        f"**Scaling** (whole commands, start included; median and range of {turns})",
        "",
        "| what | runs | jobs | seconds | range | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, values in seconds.items():
        mib = f"{memory[key]:.0f}" if key in memory else ""
        median, least, most = statistics.median(values), min(values), max(values)
        cells = (*key, f"{median:.1f}", f"{least:.1f} to {most:.1f}", mib)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    rows = [[*key, values, memory.get(key)] for key, values in seconds.items()]
    write("scaling", {"columns": ["what", "runs", "jobs", "seconds", "MiB"], "rows": rows}, lines)


if __name__ == "__main__":
    main()
