"""Time against the number of runs: the ladder with more seeds and processes, and the report.

    python -m benchmarks.scaling

The ladder's runs are rung 1 of the quick profile for 2 epochs, on this machine or on a Ray cluster
of two nodes on it, with an MLflow server; the report's are made up, 75 epochs and 10,000 test
images each.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sides import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # a real server, and the factory of known runs
from report_store import LADDER, Store, curve, right  # noqa: E402
from services import Server  # noqa: E402


def run(*arguments: str) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command of this project."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr  # it is a pipe
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed: {errors}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def ladder(folder: Path, what: str, seeds: int, jobs: int, *where: str) -> dict:
    seconds, _ = run(
        "runner.py",
        "--ladder=1",
        "--profile=quick",
        "--set=training.epochs=2",
        f"--seeds=0-{seeds - 1}",
        f"--jobs={jobs}",
        *(where or [f"--tracking-uri=sqlite:///{folder / f'{seeds}-{jobs}.db'}"]),
    )
    return {"what": what, "runs": seeds, "jobs": jobs, "seconds": seconds}


def cluster(folder: Path) -> dict:
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = str(ROOT)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes.add_node(num_cpus=2)
    nodes.add_node(num_cpus=2)
    try:
        with Server(f"sqlite:///{folder / 'server.db'}", folder) as server:
            where = (f"--ray={nodes.address}", f"--tracking-uri={server.uri}")
            return ladder(folder, "ladder, two nodes", 4, 2, "--cpus-per-run=2", *where)
    finally:
        nodes.shutdown()


def report(folder: Path) -> list[dict]:
    rows, made = [], 0
    store = Store(folder)
    for runs in (5, 25, 50):
        while made < runs:
            rung, seed = LADDER[made % 5], made // 5
            store.add(rung, right(10_000, 8000, seed), seed=seed, history=curve(75, 0.9, 0.8))
            made += 1
        seconds, memory = run(
            "-m", "report", f"--tracking-uri={store.uri}", f"--out={folder / 'report'}"
        )
        rows.append({"what": "report", "runs": runs, "seconds": seconds, "MiB": memory})
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shapes = ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2))
        rows = [ladder(place, "ladder", seeds, jobs) for seeds, jobs in shapes]
        rows += [cluster(place), *report(place)]
    lines = [
        "**Scaling** (whole commands, start included)",
        "",
        "| what | runs | jobs | seconds | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        memory = f"{row['MiB']:.0f}" if "MiB" in row else ""
        lines.append(
            f"| {row['what']} | {row['runs']} | {row.get('jobs', '')} | {row['seconds']:.1f} "
            f"| {memory} |"
        )
    write("scaling", {"rows": rows}, lines)


if __name__ == "__main__":
    main()
