"""MLflow's own UI, opened where the training runs are.

This process imports no MLflow: beside it there are the server's two, and what prepares the store is
gone before they start.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from resnet import UserError
from resnet.host import messages

if TYPE_CHECKING:
    from resnet.store import Store

PORT = 5000
RUNGS = "tags.rung != ''"
"""MLflow's filter for every run of a rung; the runs that show a ladder have no such tag."""


def prepare(uri: str | None, folder: Path | None) -> tuple[str, dict[str, str]]:
    """Opens the store; without runs of a rung, the study's records are imported and shown.

    Args:
        uri: MLflow tracking URI; by default the project's own.
        folder: of the study; by default the one that comes with the project.

    Returns:
        The store's full address, and by name the pages to open, without the server's address.

    Raises:
        UserError: the store cannot be used, or a record is damaged.
    """
    from resnet import records
    from resnet.store import connect, nothing_run
    from resnet.study import Study

    store = connect(uri, Study.open(folder))
    if not store.client.search_runs([store.experiment_id], RUNGS, max_results=1):
        if found := records.load_all(store.study.results):
            from report.presentation.output import restore

            store = records.connect_recorded(store.uri, store.study)
            print(f"{restore(store, found)} recorded runs restored")
        else:
            print(f"{nothing_run(store.study, 'reload the page when there are runs', store.uri)}")
    return store.uri, _pages(store)


def _pages(store: "Store") -> dict[str, str]:
    """Returns pages whose whole state is in the address, so that a reload changes nothing.

    ``runs`` lists the runs in the order of the rungs. ``ladder`` shows the newest ladder, if there
    is one: by rung, test accuracy with its interval and the published accuracy.
    """
    number = store.experiment_id
    runs = {
        "searchFilter": f"{RUNGS} AND tags.part_of IS NULL",
        "orderByKey": "tags.`rung`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART",
        "workflowType": "machine_learning",  # else MLflow shows its pages for language models
    }
    found = {"runs": f"#/experiments/{number}/runs?{urlencode(runs)}"}
    for newest in store.client.search_runs([number], "tags.ladder != ''", max_results=1):
        chart = {
            "runs": [newest.info.run_id],
            "experiments": [number],
            "metric": "test_accuracy",
            "plot_metric_keys": ["test_accuracy", "low", "high", "published"],
            "show_point": True,
        }
        values = {key: json.dumps(value) for key, value in chart.items()}
        found["ladder"] = f"#/metric?{urlencode(values | {'x_axis': 'step'})}"
    return found


@contextlib.contextmanager
def served(uri: str, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """MLflow's server over a store, on this machine only, until the end.

    Args:
        uri: of the store, a file or a database.
        port: if taken, an error; by default 5000 or the next that is free.

    Yields:
        The server's address, once it answers, and its process.

    Raises:
        UserError: the port is taken, or the server ends by itself.
    """
    port = _free(range(PORT, PORT + 100) if port is None else [port])
    # the user's own settings of MLflow are of other servers
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # ten processes for language models
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", "--workers=1"]
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(  # noqa: S603 - fixed arguments
            [*command, f"--port={port}"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which ends it
        )
        try:
            while not _answers(port):
                if server.poll() is not None:
                    log.seek(0)
                    last = (log.read().strip().splitlines() or ["it says nothing"])[-1]
                    raise UserError(f"MLflow's server does not start: {last[:300]}")
                time.sleep(0.2)
            yield address, server
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(timeout=10)


def _free(ports: Sequence[int]) -> int:
    for port in ports:
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            probe.bind(("127.0.0.1", port))
            return port
    raise UserError(f"--port: {ports[-1]} is taken; leave it out to have the next free one")


def _answers(port: int) -> bool:  # it listens once it is ready; a request might go to a proxy
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def show(uri: str | None, folder: Path | None, port: int | None, in_browser: bool) -> None:
    """Shows the runs in MLflow's UI until Ctrl-C; of a server its address is opened."""
    away = (uri or "").strip().startswith("http")
    print("opening the store ..." if away else "starting MLflow ...", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    # Ctrl-C is for this process
    ignored = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, ignored) as pool:
        uri, pages = pool.submit(prepare, uri, folder).result()
    if uri.startswith("http"):
        _open(f"{uri.rstrip('/')}/", pages, in_browser)
        return
    with contextlib.suppress(KeyboardInterrupt), served(uri, port) as (address, server):
        _open(address, pages, in_browser)
        print("Ctrl-C ends it", flush=True)
        server.wait()


def _open(server: str, pages: dict[str, str], in_browser: bool) -> None:
    for name, page in pages.items():
        print(f"{name:<8}{messages.hide(f'{server}{page}')}", flush=True)
    displays = sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
    if in_browser and displays:
        webbrowser.open(f"{server}{pages['runs']}")
