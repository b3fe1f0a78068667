"""Time against the number of runs: the ladder with more seeds and processes, and the report.

    python -m benchmarks.scaling

The ladder's runs are rung 1 of the quick profile for 2 epochs; the report's are made up, 75 epochs
and 10,000 test images each.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sides import write

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a command of this project."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed: {errors}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def ladder(folder: Path) -> list[dict]:
    rows = []
    for seeds, jobs in ((1, 1), (2, 1), (4, 1), (2, 2), (4, 2)):
        place = folder / f"{seeds}-{jobs}"
        place.mkdir()
        seconds, _ = run(
            "runner.py",
            "--ladder=1",
            "--profile=quick",
            "--set=training.epochs=2",
            f"--seeds=0-{seeds - 1}",
            f"--jobs={jobs}",
            f"--tracking-uri=sqlite:///{place / 'mlflow.db'}",
        )
        rows.append({"what": "ladder", "runs": seeds, "jobs": jobs, "seconds": seconds})
    return rows


def report(folder: Path) -> list[dict]:
    sys.path.insert(0, str(ROOT / "tests"))  # the factory of known runs
    from report_store import LADDER, Store, curve, right

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
        rows = [*ladder(Path(folder)), *report(Path(folder))]
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
