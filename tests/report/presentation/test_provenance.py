"""Tests the tables of runs, assumptions and the environment, and the commands that repeat runs."""

import re
from dataclasses import replace

import pytest
from report_known import N, read
from report_store import FINGERPRINT, LADDER, STUDY, curve, right

from report import analysis
from report.presentation.tables import commands
from report.presentation.tables.provenance import cost, environment
from resnet.host.messages import duration
from resnet.study import change


def test_the_page_lists_commands_environment_and_assumptions(full):
    cells = read(full[1])
    for row in list(cells.records("runs").values()):
        command = r"\.venv/bin/ladder run \w+ --seed 0 --cpus-per-run 4 --fresh"
        assert re.fullmatch(command, row["repeat with"])
    facts = {name: row["value"] for name, row in cells.records("environment").items()}
    assert facts["fingerprint"] == FINGERPRINT
    assert facts["training and test images"] == "50,000 and 10,000"
    assert facts["keras"] == "3.15.1"
    assert (facts["threads"], facts["instruction set"]) == ("4", "avx2")
    assert facts["SHA-256 of claims.yaml when a run began"] == "1" * 64
    assert "resumed elsewhere" not in facts
    assert facts["total training time"] == duration(61.0 * (25 * 4 + 50 + 75))
    assert "training.learning_rate" in cells.records("assumptions")
    assert "min_lr" in cells.records("contradictions")


def test_an_epoch_that_two_runs_share_is_counted_once(store):
    shared = {"shared_epochs": 5.0}
    store.add(LADDER[0], right(N, 700), history=curve(10, 0.9, 0.8), start=1)
    store.add(LADDER[1], right(N, 800), history=curve(10, 0.9, 0.8), metrics=shared, start=2)
    hours = cost(analysis.load(store.uri)).frame["device_hours"]
    assert [*hours] == pytest.approx([610 / 3600, 305 / 3600])


def test_a_run_that_was_resumed_on_other_hardware_is_marked(store):
    store.add(LADDER[0], right(N, 700), tags={"resumed_elsewhere": "avx2 instead of avx512"})
    shown = dict(environment(analysis.load(store.uri)).texts()[1:])
    assert shown["resumed elsewhere"] == "avx2 instead of avx512"


def test_a_value_is_listed_as_assumed_until_it_is_changed():
    experiment = STUDY.experiment(LADDER[0])
    assert "model.batch_norm_momentum" in experiment.assumed
    changed = change(experiment, {"model": {"batch_norm_momentum": 0.9}}, "--set")
    assert set(experiment.assumed) - set(changed.assumed) == {"model.batch_norm_momentum"}
    same = change(experiment, {"model": {"batch_norm_momentum": 0.99}}, "--set")
    assert same.assumed == experiment.assumed
    vgg = STUDY.experiment("vgg")
    block = {"training": {"early_stopping": {"patience": 3}}}
    assert "training.early_stopping" not in change(vgg, block, "--set").assumed


def test_the_command_that_repeats_a_run_has_the_run_s_overrides(store):
    store.add(LADDER[0], right(N, 700), modified="training.epochs=2 model.dropout=0.1")
    content = analysis.load(store.uri)
    assert commands.rerun_command(STUDY, content.runs[0]) == (
        ".venv/bin/ladder run 1 --seed 0 "
        "--cpus-per-run 4 --set training.epochs=2 --set model.dropout=0.1 --fresh"
    )
    assert all(not system.changes for system in content.systems[1:3])


def test_commands_name_images_and_backends_that_are_not_the_default(store):
    """The default images of the quick profile are the digits."""
    store.add(LADDER[0], right(N, 700), profile="quick", tags={"backend": "jax"})
    content = analysis.load(store.uri)
    for command in (
        commands.rerun_command(STUDY, content.runs[0]),
        commands.ablate_command(content, "2"),
    ):
        assert re.match(r"KERAS_BACKEND=jax \.venv-jax/bin/ladder (run 1|ablate 2) --", command)
        assert "--profile quick --data cifar10" in command


@pytest.mark.parametrize(
    ("dataset", "says", "ran_on", "options"),
    [
        ("cifar10", None, "mnist", ["--data", "mnist"]),
        ("pets", None, "pets", ["--data", "/there/pets"]),
        ("pets", "pets", "pets", []),
    ],
)
def test_commands_name_images_that_the_study_does_not_name(store, dataset, says, ran_on, options):
    study = STUDY.model_copy(update={"dataset": dataset, "data": says})
    store.add(LADDER[0], right(N, 700), dataset=ran_on)
    run = replace(analysis.load(store.uri, dataset=ran_on).runs[0], source=f"/there/{ran_on}")
    assert commands.data_option(study, run) == options


def test_a_run_in_lanes_is_repeated_in_lanes_and_counts_for_its_share_of_the_time(store):
    lanes = {"backend": "jax", "device": "NVIDIA H200", "lanes": "5", "precision": "tf32"}
    for seed in range(2):
        store.add(LADDER[0], right(N, 700), seed=seed, tags=lanes)
    content = analysis.load(store.uri)
    assert commands.rerun_command(STUDY, content.runs[0]).startswith(
        "KERAS_BACKEND=jax .venv-gpu/bin/ladder run 1 --seed 0 --lanes 5"
    )
    assert content.seconds == pytest.approx(2 * 61.0 * 25 / 5)
    facts = dict(environment(content).texts())
    assert (facts["lanes"], facts["precision"]) == ("5", "tf32")
