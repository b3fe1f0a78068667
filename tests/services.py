"""Helpers that start real servers, copy the project and watch processes."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary(name: str) -> str | None:
    """Returns the path of a PostgreSQL program, or None. Debian keeps these programs off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


def copy(folder: Path) -> Path:
    """Copies the project; returns the new ``runner.py``. Two copies share no reports or locks."""
    for part in ("resnet", "report", "experiments"):
        shutil.copytree(ROOT / part, folder / part)
    return Path(shutil.copyfile(ROOT / "runner.py", folder / "runner.py"))


def workers() -> list[psutil.Process]:
    """Waits for busy Ray workers among this process's descendants, and returns these workers."""
    while not (
        found := [
            process
            for process in psutil.Process().children(recursive=True)
            if process.name().startswith("ray::_task")
        ]
    ):
        time.sleep(0.1)
    return found


def read_until(process: subprocess.Popen, pattern: str, times: int = 1) -> None:
    """Reads the output of a process until ``times`` lines have matched a pattern."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        times -= bool(re.search(pattern, line))
        if not times:
            return
    raise AssertionError(f"{pattern!r} is missing:\n{''.join(lines)}\n{process.stderr.read()}")


class Service:
    """A process that can be killed and started again."""

    process: subprocess.Popen

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


class Postgres(Service):
    """A new PostgreSQL server that accepts TCP connections with a password."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        self.uri = f"postgresql+psycopg2://tester:s3cret@127.0.0.1:{self.port}/postgres"
        # PostgreSQL refuses to run as root
        self.user = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(self.folder, "postgres")
        (self.folder / "secret").write_text("s3cret\n")
        subprocess.run(
            f"{binary('initdb')} -D data -U tester -A password --pwfile secret --no-sync".split(),
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self.user,
        )

    def start(self) -> None:
        self.process = subprocess.Popen(
            f"{binary('postgres')} -D data -p {self.port} -h 127.0.0.1 -k {self.folder}".split(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
            **self.user,
        )
        wait_for(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close())
        time.sleep(1)

    def __exit__(self, *exception: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)


class Server(Service):
    """MLflow's server with a database as its store."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database, self.folder, self.port = database, folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", "--workers=1"),
                    f"--port={self.port}",
                    f"--backend-store-uri={self.database}",
                    f"--artifacts-destination={self.folder / 'artifacts'}",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        wait_for(lambda: urllib.request.urlopen(f"{self.uri}/health", timeout=2).close())


def wait_for(what, seconds: float = 120) -> None:
    """Retries a function until it raises no OSError, for at most ``seconds`` seconds."""
    until = time.monotonic() + seconds
    while True:
        try:
            return what()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
