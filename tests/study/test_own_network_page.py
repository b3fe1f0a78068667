"""Tests that the networks and commands of docs/own-network.md work as the page says."""

import shlex

import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from ladders import all_printed, runs_of, written

from resnet.data import load
from resnet.network import build
from resnet.study import Study

PAGE = (ROOT / "docs" / "own-network.md").read_text("utf-8")
COMMANDS = [
    shlex.split(line)
    for line in PAGE.splitlines()
    if line.startswith("    ") and (".venv" in line or "KERAS" in line)
]
LADDER = [words[1:] for words in COMMANDS if words[0].endswith("ladder")]
PAPER = {3: 0.27, 5: 0.46, 7: 0.66}  # maps blocks per stage to millions of parameters (table 6)
# without these replacements, training would take hours
SHORT = {"epochs: 182": "epochs: 1", "[91, 136]": "[1, 2]"}
SHORT |= {"blocks: 3}": "blocks: 1}", "blocks: 5}": "blocks: 2}"}


def test_the_networks_have_as_many_parameters_as_in_the_paper(tmp_path):
    written(PAGE, tmp_path, SHORT)
    study = Study.open(tmp_path / "he")
    for blocks, millions in PAPER.items():
        e = study.experiment("01_layers20", overrides=[f"model.blocks={blocks}"])
        network = build(e, (32, 32, 3), 10, 0)
        layers = [layer.name for layer in network.layers if hasattr(layer, "kernel")]
        assert len(layers) == 6 * blocks + 2
        count = sum(np.prod(variable.shape) for variable in network.trainable_variables)
        assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_the_commands_work_and_the_registered_model_predicts_the_same_classes(
    here, command, image_folder
):
    images = {"cifar10\n": f"squares\ndata: {image_folder}\n"}
    written(PAGE, command.folder, SHORT | images | {"((16, 32, 64), 1)": "((16, 32), 1)"})
    shown = {word for words in COMMANDS for word in words}
    assert shown >= {"keys", "plan", "run", "report", "record", "restore", "serve"}
    printed = all_printed(here, LADDER)  # the other commands need a GPU or start a server
    assert "model.blocks (basic_blocks): a whole number, at least 1" in printed["keys model"].out
    assert "basic blocks in each of the three stages" in printed["keys model"].out.lower()
    assert "model.blocks: 1 -> 2" in printed["plan all"].out
    assert printed["run all"].out.count("test accuracy") >= 2
    assert "depth-gain" in printed["report --summary"].out
    assert "2 of 2 recorded runs restored" in printed["restore --experiments"].out

    mlflow.set_tracking_uri(command.uri)
    name = next(word for words in COMMANDS for word in words if word.startswith("models:"))
    model = mlflow.pyfunc.load_model(name)
    runs = runs_of(command.uri, study="he2015")
    (run,) = (run for run in runs if run.data.tags["rung"] == "01_layers20")
    predicted = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="test_predictions.csv"
    )
    classes = np.asarray(model.predict(load(str(image_folder)).x_test)).argmax(axis=1)
    np.testing.assert_array_equal(classes, pd.read_csv(predicted)["predicted"])
    assert run.data.tags["standardize"].startswith("SHA-256 ")
