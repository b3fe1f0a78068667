"""docs/own-network.md to the letter: He's networks, trained, killed, reported and served."""

import re
import shlex

import conftest
import ladders
import mlflow
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from ladders import KILLED_AT

from resnet.data import load
from resnet.network import build
from resnet.study import Study

PAGE = (ROOT / "docs" / "own-network.md").read_text("utf-8")
COMMANDS = [
    shlex.split(line)
    for line in PAGE.splitlines()
    if line.startswith("    ") and (".venv" in line or "KERAS" in line)
]
PAPER = {3: 0.27, 5: 0.46, 7: 0.66, 9: 0.85, 18: 1.7}
"""Blocks of a stage, and millions of parameters by table 6 of the paper."""


SHORT = {"cifar10\n": "digits\n", "epochs: 182": "epochs: 2", "[91, 136]": "[1, 2]"}
SHORT |= {"blocks: 3}": "blocks: 1}", "blocks: 5}": "blocks: 2}"}
"""What would take hours otherwise."""


def written(folder):
    """The study as the page says it, but short."""
    ladders.written(PAGE, folder, SHORT)
    return folder / "he"


def test_its_networks_have_the_paper_s_parameters(tmp_path):
    study = Study.open(written(tmp_path))
    for blocks, millions in PAPER.items():
        e = study.experiment("01_layers20", overrides=[f"model.blocks={blocks}"])
        network = build(e, (32, 32, 3), 10, 0)
        layers = [layer.name for layer in network.layers if hasattr(layer, "kernel")]
        assert len(layers) == 6 * blocks + 2
        count = sum(np.prod(variable.shape) for variable in network.trainable_variables)
        assert count / 1e6 == pytest.approx(millions, abs=0.05 if millions == 1.7 else 0.005)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, empty):
    """Every command of the page, one after the other, with what it printed."""
    folder = tmp_path_factory.mktemp("page")
    command = conftest.on_a_store(empty, folder)
    written(folder)
    printed = {}
    for words in COMMANDS:
        if words[0].endswith("ladder"):  # the others are of a GPU, and a server
            printed[" ".join(words[1:3])] = process = command(*words[1:])
            assert process.returncode == 0, (words, process.out, process.err)
    return command, printed


def test_its_commands_are_those_of_an_experiment_s_life():
    told = [word for words in COMMANDS for word in words if re.fullmatch("[a-z]+", word)]
    for name in ("keys", "plan", "run", "report", "record", "restore", "serve"):
        assert name in told


def test_its_study_is_told_run_and_judged(ended):
    _, printed = ended
    assert "model.blocks (basic_blocks): a whole number, at least 1" in printed["keys model"].out
    assert "basic blocks in each of the three stages" in printed["keys model"].out.lower()
    assert "model.blocks: 1 -> 2" in printed["plan all"].out
    assert printed["run all"].out.count("test accuracy") >= 2
    assert "depth-gain" in printed["report --summary"].out
    assert "2 of 2 recorded runs restored" in printed["restore --experiments"].out


def test_its_model_answers_raw_images_as_it_was_tested(ended):
    command, _ = ended
    mlflow.set_tracking_uri(command.uri)
    name = next(word for words in COMMANDS for word in words if word.startswith("models:"))
    images = load("digits").x_test
    model = mlflow.pyfunc.load_model(name)
    (run,) = (
        r for r in ladders.runs_of(command.uri, study="he2015") if r.data.tags["rung"][1] == "1"
    )
    predicted = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="test_predictions.csv"
    )
    classes = np.asarray(model.predict(images)).argmax(axis=1)
    np.testing.assert_array_equal(classes, pd.read_csv(predicted)["predicted"])
    assert run.data.tags["standardize"].startswith("SHA-256 ")


def test_it_is_killed_and_goes_on_bit_for_bit(ended, empty, tmp_path):
    command, _ = ended
    written(tmp_path)
    killed = conftest.on_a_store(empty, tmp_path)
    process = killed("step 9, never 0", "run", "1", "--experiments", "he", script=KILLED_AT)
    assert process.returncode == 0, process.err
    whole, parts = (of_rung_1(c, tmp_path) for c in (command, killed))
    ladders.assert_identical(whole, parts)


def of_rung_1(command, folder):
    runs = ladders.runs_of(command.uri, study="he2015")
    (run,) = (run for run in runs if run.data.tags["rung"] == "01_layers20")
    return ladders.record(command.uri, run, folder)
