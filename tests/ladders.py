"""Helpers that execute commands, and that read and compare the resulting runs."""

import os
import re
import shutil
import subprocess
import sys

import mlflow
import numpy as np
from conftest import ROOT
from mlflow.tracking import MlflowClient

KILLED_AT = str(ROOT / "tests" / "killed_at.py")
EPOCHS = 10
# a network with batch normalisation and dropout, so small that tests can train it many times
TINY = (
    "--set=model={architecture: vgg, filters: [4], convolutions: 1, dense: [], dropout: 0.5, "
    "batch_norm_momentum: 0.9}"
)
FAST = [TINY, "--set=training.epochs=1"]
TIMING = {"images_per_second", "epoch_seconds", "train_seconds"}


def written(page, folder, shorter):
    """Writes each code block of a page to the file that the block's first line names.

    ``shorter`` maps texts of the page to replacements that shorten training.
    """
    for block in re.findall(r"```\w+\n(.*?)```", page, re.DOTALL):
        first, text = block.split("\n", 1)
        path = folder / re.sub(r"[#<>!\s]|--", "", first)
        path.parent.mkdir(exist_ok=True)
        for long, short in shorter.items():
            text = text.replace(long, short)
        path.write_text(text, encoding="utf-8")


def all_printed(here, commands):
    """Runs all commands. Returns a map from each command's first two words to its process."""
    processes = {}
    for words in commands:
        processes[" ".join(words[:2])] = process = here(*words)
        assert process.returncode == 0, (words, process.out, process.err)
    return processes


def runs_of(uri, role="rung", study="resnet-ladder"):
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    return list(client.search_runs([experiment.experiment_id], f"tags.role = '{role}'"))


def in_a_fresh_shell(line, folder):
    """Runs a printed command in a new shell without an activated virtual environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "200"}
    return subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True
    )


def printed(text, after):
    """Returns the command that follows the pattern ``after`` on a line of ``text``."""
    return re.search(rf"{after}  ?(.+?)(?:  \(|$)", text, re.MULTILINE)[1]


def record(uri, run, folder):
    """Returns the results that no interruption may change: curves, weights and predictions."""
    client = MlflowClient(uri)
    histories = {}
    for key in run.data.metrics:
        if key.startswith("system/") or key in TIMING:
            continue
        metrics = client.get_metric_history(run.info.run_id, key)
        assert len({metric.step for metric in metrics}) == len(metrics), f"{key} is logged twice"
        histories[key] = sorted((metric.step, metric.value) for metric in metrics)
    model = mlflow.keras.load_model(model_of(run))
    probabilities = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="test_probabilities.npy", dst_path=str(folder)
    )
    return histories, model.get_weights(), np.load(probabilities)


def model_of(run):
    tags = run.data.tags
    rung = re.sub("[~+]", "_", tags["rung"])  # MLflow does not allow these characters in a name
    return f"runs:/{run.info.run_id}/{rung}-seed{tags['seed']}"


def assert_identical(a, b):
    assert a[0] == b[0]
    for ours, theirs in zip(a[1], b[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(a[2], b[2])


def left_alone(arguments, empty, tmp_path_factory):
    """Runs a command without interruptions in a new store. Returns the store's address."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copyfile(empty, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    subprocess.run(
        [sys.executable, KILLED_AT, "never 0", *arguments],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "XDG_CACHE_HOME": str(folder / "cache")},
        check=True,
        capture_output=True,
        cwd=folder,
    )
    return uri


def records_of(uri, tmp_path_factory):
    return {
        run.data.tags["rung"]: record(uri, run, tmp_path_factory.mktemp("record"))
        for run in runs_of(uri)
    }


def ladder_arguments(image_folder):
    # Only rung 2 augments images. Both rungs lower the learning rate and may stop early.
    return [
        "--ladder=1,2",
        f"--data={image_folder}",
        TINY,
        "--seed=3",
        f"--set=training.epochs={EPOCHS}",
        "--set=training.early_stopping={monitor: val_loss, patience: 9, min_delta: 0.0001, "
        "restore_best_weights: always}",
        "--set=training.reduce_lr_on_plateau={monitor: val_loss, factor: 0.2, patience: 1, "
        "min_delta: 0.0001, min_lr: 0.00001}",
    ]


def assert_as_if_nothing_happened(command, undisturbed, folder):
    children = runs_of(command.uri)
    assert sorted(run.data.tags["rung"] for run in children) == sorted(undisturbed)
    for run in children:
        assert run.info.status == "FINISHED"
        assert_identical(record(command.uri, run, folder), undisturbed[run.data.tags["rung"]])
        of_run = f"source_run_id = '{run.info.run_id}'"
        models = mlflow.search_logged_models([run.info.experiment_id], of_run, output_format="list")
        assert len(models) == 1
    assert {run.info.status for run in runs_of(command.uri, "ladder")} <= {"FINISHED", "KILLED"}
    assert not list(command.checkpoints.glob("*/*.npz"))
