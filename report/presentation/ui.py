"""Shows a store in MLflow's UI: the list of runs, and the chart of the ladder."""

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
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from report.presentation.mlflow_ladder import restore
from resnet import UserError, records
from resnet.host import messages
from resnet.store import Store, connect, nothing_run
from resnet.study import Study

RUNGS = "tags.rung != ''"
"""MLflow's filter for trained runs; a run to which a ladder is logged has no tag ``rung``."""


def prepare(uri: str | None, folder: Path | None) -> tuple[str, dict[str, str]]:
    """Opens the store. If it has no runs, the study's records are imported and shown instead.

    Returns:
        The store's full address, and a dict from page names to addresses relative to the server.
    """
    store = connect(uri, Study.open(folder))
    if not store.client.search_runs([store.experiment_id], RUNGS, max_results=1):
        if found := records.load_all(store.study.results):
            store = records.connect_recorded(store.uri, store.study)
            print(f"{restore(store, found)} recorded runs restored")
        else:
            print(nothing_run(store.study, "the page is empty; reload it after a run", store.uri))
    return store.uri, _pages(store)


def _pages(store: Store) -> dict[str, str]:
    """Returns the pages' addresses. An address holds the page's settings, so a reload keeps them.

    ``runs`` lists the runs in the order of the rungs. ``ladder`` is a chart of the newest
    logged ladder, if any. The chart shows test accuracy with its interval, and published accuracy.
    """
    number = store.experiment_id
    runs = {
        "searchFilter": f"{RUNGS} AND tags.part_of IS NULL",
        "orderByKey": "tags.`rung`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART",
        "workflowType": "machine_learning",  # otherwise MLflow shows pages for language models
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
def served(uri: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen]]:
    """Runs MLflow's server on a database until the block ends; other machines have no access.

    Yields the server's address and process as soon as the server answers. Port 0 stands for any
    free port.

    Raises:
        UserError: the server does not start.
    """
    with socket.create_server(("127.0.0.1", port)) as probe:
        port = probe.getsockname()[1]
    # the user's MLFLOW_ variables may be meant for another server
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # other users could read passwords in arguments
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # avoids ten processes for language models
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", "--workers=1"]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(  # noqa: S603 - fixed arguments
            [*command, f"--port={port}"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that the server's child process can be ended too
        )
        try:
            while not _answers(port):
                if server.poll() is not None:
                    log.seek(0)
                    reason = messages.one_line(log.read())[-300:]
                    raise UserError(f"MLflow's server does not start: {reason}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/", server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _answers(port: int) -> bool:  # sends no request, because a request might go to a proxy
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def show(uri: str, pages: dict[str, str], in_browser: bool) -> None:
    """Shows pages in MLflow's UI until Ctrl-C. :func:`prepare` returns ``uri`` and ``pages``."""
    if uri.startswith("http"):
        return _open(f"{uri.rstrip('/')}/", pages, in_browser)
    for number in (signal.SIGTERM, signal.SIGHUP):  # both end the server, as Ctrl-C does
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    print("starting MLflow ...", flush=True)
    with contextlib.suppress(KeyboardInterrupt), served(uri) as (address, server):
        _open(address, pages, in_browser)
        print("Press Ctrl-C to stop.", flush=True)
        server.wait()


def _open(server: str, pages: dict[str, str], in_browser: bool) -> None:
    for name, page in pages.items():
        print(f"{name:<8}{messages.hide(f'{server}{page}')}", flush=True)
    displays = sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
    if in_browser and displays:
        webbrowser.open(f"{server}{pages['runs']}")
