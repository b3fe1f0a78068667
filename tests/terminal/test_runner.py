"""Tests the real command line in separate processes with a real MLflow database."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import killed_at
import mlflow
import numpy as np
import pytest
from ladders import (
    EPOCHS,
    FAST,
    KILLED_AT,
    assert_as_if_nothing_happened,
    in_a_fresh_shell,
    ladder_arguments,
    left_alone,
    model_of,
    printed,
    records_of,
    runs_of,
)
from mlflow.tracking import MlflowClient
from services import copy, read_until, workers

from resnet.training import loop, train


@pytest.fixture(scope="module")
def finished(image_folder, empty, tmp_path_factory):
    """Returns the address of a store with uninterrupted runs of rungs 1 and 2."""
    return left_alone(ladder_arguments(image_folder), empty, tmp_path_factory)


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    records = records_of(finished, tmp_path_factory)
    assert set(records) == {"01_template", "02_augmentation"}
    histories = records["02_augmentation"][0]
    assert len({rate for _, rate in histories["learning_rate"]}) > 1, "the learning rate never fell"
    return records


def test_kills_at_any_point_do_not_change_results(command, image_folder, undisturbed, tmp_path):
    """Kills a process at each of ``points`` but the last; the next process continues the work."""
    points = (
        "step 8, checkpoint 4, validation 1, metrics 3, artifacts 1, model 1, end 1, between 2, "
        "checkpoint 7, never 0"
    )
    process = command(points, *ladder_arguments(image_folder), script=KILLED_AT)
    assert process.returncode == 0, process.err
    assert "already finished" in process.out  # rung 1 ended between two kills
    assert_as_if_nothing_happened(command, undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_moments_do_not_change_results(
    command, image_folder, undisturbed, tmp_path, seed
):
    moments = random.Random(seed)
    arguments = ladder_arguments(image_folder)
    for _ in range(15):
        process = command.start("never 0", *arguments, script=KILLED_AT)
        read_until(process, "training, at most")
        time.sleep(moments.uniform(0, 12))
        process.kill()
        process.communicate()
    process = command("never 0", *arguments, script=KILLED_AT)
    assert process.returncode == 0, process.err
    assert_as_if_nothing_happened(command, undisturbed, tmp_path)


def test_ctrl_c_leaves_a_resumable_run_and_prints_how_to_continue(
    command, image_folder, undisturbed, tmp_path
):
    arguments = ladder_arguments(image_folder)
    process = command.start(*arguments)
    read_until(process, "epoch 1/")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue with" in out
    assert "Traceback" not in err
    assert [run.info.status for run in runs_of(command.uri)] == ["KILLED"]
    assert [run.info.status for run in runs_of(command.uri, "ladder")] == ["KILLED"]
    process = in_a_fresh_shell(printed(out, "continue with:"), tmp_path)
    assert process.returncode == 0, process.stderr
    assert re.search(r"resumes in epoch [2-9]", process.stdout)
    assert_as_if_nothing_happened(command, undisturbed, tmp_path)


def test_lost_workers_do_not_change_results(command, image_folder, undisturbed, tmp_path):
    process = command.start(*ladder_arguments(image_folder), "--jobs=2")
    for end in ("kill", "terminate"):
        read_until(process, "epoch")
        getattr(workers()[0], end)()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "its worker was lost" in out
    assert_as_if_nothing_happened(command, undisturbed, tmp_path)


def test_finished_work_is_skipped_and_fresh_trains_it_again(
    command, here, image_folder, monkeypatch
):
    arguments = ["--ladder=1", f"--data={image_folder}", *FAST]
    assert here(*arguments).returncode == 0
    again = here(*arguments)
    assert again.returncode == 0
    assert "already finished" in again.out
    assert "nothing was trained" in again.out
    assert "all of these runs are finished" in here("plan", "1", *arguments[1:]).out
    told = here("report", "--summary", "--own")
    assert "18 claims not run" in told.out  # the other claim needs only rung 1
    assert len(runs_of(command.uri)) == len(runs_of(command.uri, "ladder")) == 1
    assert (command.checkpoints.parent / "reports" / "resnet-ladder" / "report.html").exists()
    assert " ui " in printed(again.out, "browse:")
    planned = here(*arguments, "--dry-run", "--seeds=0-1")
    for text in ("runs: 2, finished runs: 1", "judging by finished runs", "parameters"):
        assert text in planned.out
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", os.fsync)
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0)
        killed_at.full(5)
        assert here(*arguments, "--fresh").returncode == 1
    process = here(*arguments)  # resumes the failed second run under a new parent run
    assert process.returncode == 0, process.err
    assert "nothing was trained" not in process.out
    first, second = runs_of(command.uri)
    assert first.data.metrics["test_loss"] == second.data.metrics["test_loss"]
    parents = {run.info.run_id: run.info.status for run in runs_of(command.uri, "ladder")}
    assert parents[first.data.tags["mlflow.parentRunId"]] == "FINISHED"


def test_two_runners_at_once_on_a_fresh_database(command, image_folder):
    """Both commands include rung 2, which is trained once."""
    Path(command.uri.removeprefix("sqlite:///")).unlink()
    common = [f"--data={image_folder}", *FAST]
    runners = [command.start(f"--ladder={rungs}", *common) for rungs in ("1,2", "2,3")]
    outputs = [runner.communicate(timeout=300) for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    children = runs_of(command.uri)
    assert sorted(run.data.tags["rung"][:2] for run in children) == ["01", "02", "03"]
    for run in children:
        assert run.info.status == "FINISHED"
        assert len(MlflowClient(command.uri).get_metric_history(run.info.run_id, "loss")) == 1
        assert "test_accuracy" in run.data.metrics
    assert [run.info.status for run in runs_of(command.uri, "ladder")] == ["FINISHED"] * 2


def test_a_run_logs_settings_figures_and_model_to_mlflow(finished, undisturbed, image_folder):
    (run,) = [run for run in runs_of(finished) if run.data.tags["rung"] == "02_augmentation"]
    (parent,) = runs_of(finished, "ladder")
    tags, metrics, params = run.data.tags, run.data.metrics, run.data.params
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert (tags["seed"], tags["profile"], tags["dataset"]) == ("3", "full", "squares")
    assert tags["modified"].startswith("model={")
    assert len(tags["config_hash"]) == len(tags["dataset_fingerprint"]) == 64
    for key in ("git_commit", "git_dirty", "backend", "version.keras", "device"):
        assert tags[key]
    assert params["training.epochs"] == str(EPOCHS)
    assert params["training.early_stopping.patience"] == "9"
    assert {dataset.dataset.name for dataset in run.inputs.dataset_inputs} == {"squares"}
    assert metrics["epochs_run"] <= EPOCHS
    once = "test_accuracy test_loss best_val_accuracy best_epoch stopped_epoch train_seconds"
    assert metrics.keys() >= {*once.split(), "parameters", "multiply_adds"}
    artifacts = {a.path for a in MlflowClient(finished).list_artifacts(run.info.run_id)}
    pictures = {"curves.png", "confusion_matrix.png", "mistakes.png"}
    assert artifacts >= pictures | {"experiment.yaml", "model_summary.txt", "confusion_matrix.csv"}

    # the logged model computes the logged probabilities from raw images
    from resnet import data

    x = data.load(str(image_folder)).x_test
    *_, logged = undisturbed["02_augmentation"]
    model = mlflow.keras.load_model(model_of(run))
    assert type(model.layers[-1].get_layer("group1_bn1")) is keras.layers.BatchNormalization
    np.testing.assert_allclose(model.predict(x, verbose=0), logged, rtol=1e-4, atol=1e-6)
    again = mlflow.pyfunc.load_model(model_of(run)).predict(x)
    np.testing.assert_allclose(again, logged, rtol=1e-4, atol=1e-6)


def test_a_failed_rung_does_not_stop_others_and_the_exit_code_is_1(
    command, here, image_folder, monkeypatch
):
    def failing(experiment, *arguments):
        if experiment.name == "01_template":
            raise RuntimeError("the disk\nis full")
        return train(experiment, *arguments)

    monkeypatch.setattr("resnet.engines.jobs.train", failing)
    process = here("--ladder=1-2", f"--data={image_folder}", *FAST)
    assert process.returncode == 1, process.err
    assert "failed: RuntimeError: the disk is full" in process.out
    statuses = {run.data.tags["rung"]: run.info for run in runs_of(command.uri)}
    assert statuses["01_template"].status == "FAILED"
    assert statuses["02_augmentation"].status == "FINISHED"
    artifacts = MlflowClient(command.uri).list_artifacts(statuses["01_template"].run_id)
    assert "traceback.txt" in {artifact.path for artifact in artifacts}


def test_a_missing_package_prints_one_line_with_a_command_that_works(tmp_path):
    copy(tmp_path)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", python.parents[1]], check=True)
    for way in ("make -C . quick", ".venv/bin/python runner.py report --help"):
        process = in_a_fresh_shell("empty/bin/python runner.py report --help", tmp_path)
        assert process.returncode == 2
        assert process.stderr.count("\n") == 1
        assert "is not installed" in process.stderr
        assert printed(process.stderr, "try") == way
        if not (tmp_path / ".venv").exists():
            (tmp_path / ".venv").symlink_to(sys.prefix)
    assert "Usage: " in in_a_fresh_shell(way, tmp_path).stdout
