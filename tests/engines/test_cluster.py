"""Tests a Ray cluster, MLflow's server and PostgreSQL on one machine, with and without faults.

Run these tests with  make test-cluster
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from ladders import assert_identical, record, runs_of
from services import ROOT, Postgres, Server, binary, copy, read_until, workers

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not binary("initdb"), reason="PostgreSQL's server programs are missing"),
]
# each run takes 40 s, has short epochs and lowers its learning rate
ARGUMENTS = [
    "--ladder=2,5",
    "--set=model.identity_blocks=[1,1,1]",
    "--set=training.epochs=40",
    "--set=training.early_stopping={monitor: val_loss, patience: 40, min_delta: 0.0001, "
    "restore_best_weights: always}",
    "--set=training.reduce_lr_on_plateau={monitor: val_loss, factor: 0.2, patience: 2, "
    "min_delta: 0.0001, min_lr: 0.00001}",
]
SEEDS = "--seeds=0-1"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Postgres() as database, Server(database.uri, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(image_folder, tmp_path_factory):
    """Returns the results of runs trained one by one in one process, with a store in a file."""
    folder = tmp_path_factory.mktemp("undisturbed")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    process = start(folder, uri, *ARGUMENTS, SEEDS, f"--data={image_folder}")
    assert process.wait() == 0, process.stderr.read()
    return records(uri, folder)


def start(folder, uri, *arguments, script=ROOT / "runner.py"):
    return subprocess.Popen(
        [sys.executable, script, *arguments, f"--tracking-uri={uri}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(script.parent), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def records(uri, folder):
    return {
        (run.data.tags["rung"], run.data.tags["seed"]): record(uri, run, folder)
        for run in runs_of(uri)
    }


@pytest.fixture
def project(tmp_path):
    return copy(tmp_path / "project")


@pytest.fixture
def cluster(monkeypatch, project):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(project.parent))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.nodes = [cluster.add_node(num_cpus=2), cluster.add_node(num_cpus=2)]
    yield cluster
    cluster.shutdown()


def test_faults_change_no_result(server, project, cluster, undisturbed, image_folder, tmp_path):
    """The loss of a worker, a node, the server and the driver changes no result."""
    arguments = [
        *ARGUMENTS,
        SEEDS,
        f"--data={image_folder}",
        f"--ray={cluster.address}",
        "--cpus-per-run=2",
        f"--checkpoints={tmp_path / 'shared'}",
    ]
    driver = start(tmp_path, server.uri, *arguments, script=project)
    read_until(driver, r"epoch 3/")
    workers()[0].kill()
    read_until(driver, r"its worker was lost")
    read_until(driver, r"epoch \d+/", times=3)
    server.stop()
    time.sleep(20)
    server.start()
    read_until(driver, r"answers again")
    cluster.remove_node(cluster.nodes[0], allow_graceful=False)
    read_until(driver, r"epoch \d+/", times=3)
    cluster.add_node(num_cpus=2)
    read_until(driver, r"epoch \d+/", times=3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver = start(tmp_path, server.uri, *arguments, script=project)
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, out + err
    found = records(server.uri, tmp_path)
    assert set(found) == set(undisturbed)
    for key, expected in undisturbed.items():
        assert_identical(found[key], expected)
    assert {run.info.status for run in runs_of(server.uri)} == {"FINISHED"}
    assert {run.info.status for run in runs_of(server.uri, "ladder")} <= {"FINISHED", "KILLED"}
    assert not [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]


def test_two_drivers_in_two_folders_train_no_run_twice(server, image_folder, tmp_path):
    """Neither driver sees the locks or checkpoints of the other driver."""
    arguments = [*ARGUMENTS, "--set=training.epochs=6", SEEDS, f"--data={image_folder}"]
    drivers = [
        start(tmp_path, server.uri, *arguments, script=copy(tmp_path / name))
        for name in ("one", "other")
    ]
    outputs = [driver.communicate(timeout=600) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    told = "".join(out for out, _ in outputs)
    epochs = Counter(re.findall(r"(\S+ · seed \d)  epoch (\d)/6:", told))
    assert set(epochs.values()) == {1} and len(epochs) == 4 * 6, told
    assert "waits while another process trains it" in told
    runs = [run for run in runs_of(server.uri) if "training.epochs=6" in run.data.tags["modified"]]
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
