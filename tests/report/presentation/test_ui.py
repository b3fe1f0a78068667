"""Tests the ladder, the registered models and the pages in MLflow's UI."""

import re
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from conftest import ROOT
from mlflow.entities import LoggedModelStatus
from report_known import CHROMIUM, N, ladder_of
from report_store import LADDER, STUDY, Store, right

from docs import screenshots
from report import analysis
from report.presentation import mlflow_ladder, ui
from resnet import records, tracking
from resnet.data import Dataset
from resnet.store import connect
from resnet.study import Key, Study, ablation


def ladder(empty, folder):
    """Returns a store with runs of every rung; the first rung has two seeds."""
    folder.mkdir(exist_ok=True)
    made = Store.copy(empty, folder)
    for number, rung in enumerate(LADDER):
        made.add(rung, right(N, 700 + 50 * number))
    made.add(LADDER[0], right(N, 700), seed=1)
    return made


@pytest.fixture
def store(empty, tmp_path):
    """Makes a store with a ladder's runs and parent run, an ablation run and a run on digits."""
    made = ladder(empty, tmp_path)
    store = connect(made.uri)
    parent = store.client.create_run(store.experiment_id, run_name="ladder all").info.run_id
    mlflow_ladder.log_ladder(store, parent, analysis.load(store.uri))
    digits = {"profile": "quick", "dataset": "digits", "fingerprint": "cd" * 32}
    made.add(LADDER[0], right(N, 300), **digits)
    before, after = (STUDY.experiment(name) for name in LADDER[2:4])
    made.add(ablation.subset(before, after, ["training.epochs"]), right(N, 600))
    for run in store.search(role="rung"):
        made.tag(run.info.run_id, **Key.read(run.data.tags).series())
    return store


def test_the_ui_shows_the_records_if_the_store_has_no_runs(empty, tmp_path, monkeypatch):
    study = ladder(empty, tmp_path / "first").recorded(tmp_path / "results")
    uri = Store.copy(empty, tmp_path).uri
    monkeypatch.setattr(Study, "open", lambda folder: study)
    _, pages = ui.prepare(uri, None)
    store = records.connect_recorded(uri, study)
    assert not connect(uri, study).search()  # MLflow's experiment for the user's runs stays empty
    assert f"experiments/{store.experiment_id}/" in pages["runs"]
    (shown,) = (run for run in store.search() if "ladder" in run.data.tags)
    held = ladder_of(store.client, shown.info.run_id)
    assert held["test_accuracy"] == pytest.approx({n: 0.65 + 0.05 * n for n in range(1, 6)})
    assert held["seeds"] == {1: 2, 2: 1, 3: 1, 4: 1, 5: 1}
    # the tag "series" is the same for all seeds of a rung
    tags = [run.data.tags for run in store.search() if "record_sha256" in run.data.tags]
    series = {(tag["series"], tag["rung"]) for tag in tags}
    assert len({name for name, _ in series}) == len(series) == len(LADDER)


def test_each_set_of_runs_registers_models_under_its_own_name(empty, tmp_path):
    made = Store.copy(empty, tmp_path)
    store = connect(made.uri)

    def add(rung, seed, validation, **more):
        run_id = made.add(
            rung, right(N, 700), seed=seed, metrics={"best_val_accuracy": validation}, **more
        )
        model = store.client.create_logged_model(store.experiment_id, f"{rung}-seed{seed}", run_id)
        store.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return run_id

    images = np.zeros((1, 8, 8, 3), "uint8"), np.zeros(1, "uint8")
    dataset = Dataset("cifar10", ("a", "b"), *images, *images, "test")
    of = {"fingerprint": dataset.fingerprint}
    add(LADDER[0], 0, 0.99, modified="training.epochs=1", **of)
    add(LADDER[0], 1, 0.99, status="KILLED", **of)
    runs = {(rung, seed): add(rung, seed, 0.7 + 0.1 * (rung == LADDER[1]) + 0.01 * seed, **of)
            for rung in LADDER[:2] for seed in (0, 1, 2)}  # fmt: skip
    made.add(LADDER[2], right(N, 900), metrics={"best_val_accuracy": 0.9}, **of)  # without a model
    for _ in range(2):  # registering again changes nothing
        tracking.register(store, dataset, "full")
        versions = store.client.search_model_versions("name = 'resnet-ladder'")
        assert {v.run_id for v in versions} == {runs[rung, 1] for rung in LADDER[:2]}
        assert len(versions) == 2
    aliases = store.client.get_registered_model("resnet-ladder").aliases
    assert sorted(aliases) == ["best", "rung-1", "rung-2"]
    assert aliases["best"] == aliases["rung-2"] != aliases["rung-1"]

    add(LADDER[0], 0, 1.0, profile="quick", **of)
    tracking.register(store, dataset, "quick")
    assert store.client.get_registered_model("resnet-ladder").aliases == aliases
    quick = store.client.get_registered_model("resnet-ladder-quick").aliases
    assert sorted(quick) == ["best", "rung-1"]


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_the_printed_addresses_show_runs_and_ladder_and_ctrl_c_ends_the_server(store, capsys):
    command = [sys.executable, "runner.py", "ui", "--no-open", "--tracking-uri"]
    process = subprocess.Popen([*command, store.uri], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "starting MLflow ...\n"
        lines = [process.stdout.readline() for _ in range(2)]
        (runs, by_rung), (ladder, newest) = (line.split() for line in lines)
        assert (runs, ladder) == ("runs", "ladder")
        server, _, _ = by_rung.partition("#")
        at_work = psutil.Process(process.pid).children(recursive=True)
        of_server = [c for c in at_work if {"mlflow", "uvicorn"} & {*c.cmdline()}]
        assert len(of_server) == 2
        ui.show(*ui.prepare(server, None), in_browser=False)  # a server instead of a store
        assert capsys.readouterr().out == "".join(lines)

        page = screenshots.browse(by_rung, "--dump-dom")
        named = re.findall(r">(\d\d_[^<>]*?) · ", page)
        assert list(dict.fromkeys(named)) == [*LADDER]
        assert "01_template · seed 0 (accuracy)" in page  # the name of a curve
        page = screenshots.browse(newest, "--dump-dom")
        assert "ladder all (published)" in page
        assert "0.9 (step=5)" in page
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    _, left = psutil.wait_procs(at_work, timeout=20)
    assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
