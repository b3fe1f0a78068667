"""A sweep (several values for ``--set``) makes the same runs as one command per value."""

import re

import pytest
from conftest import refused
from ladders import TINY, runs_of

from resnet.terminal import Options

BATCH = "training.batch_size"


def due(*overrides, rungs="1-2", **options):
    return Options(rungs, set_=list(overrides), **options).due()


@pytest.mark.parametrize("ablate", [False, True])
def test_a_sweep_has_the_jobs_of_one_command_per_value(ablate):
    other = "training.epochs=2"
    options = {"rungs": "2", "ablate": ablate, "seeds": "0-1"}
    swept = due(f"{BATCH}=16, 64", other, **options)
    assert swept == due(f"{BATCH}=16", other, **options) + due(f"{BATCH}=64", other, **options)
    assert {job.modified for job in swept} == {f"{BATCH}={n} {other}" for n in (16, 64)}
    assert {job.varied for job in swept} == {"batch_size=16", "batch_size=64"}
    assert swept[0].label == f"{swept[0].experiment.label} · batch_size=16"
    assert len({(job.row, job.seed) for job in swept}) == len(swept)
    assert {job.varied for job in due(f"{BATCH}=16", other)} == {""}


def test_several_sweeps_make_every_combination():
    swept = due(f"{BATCH}=16,64", "training.optimizer=null,{name: sgd}", rungs="1")
    assert [job.varied for job in swept] == [
        "batch_size=16 optimizer=null",
        "batch_size=16 optimizer={name: sgd}",
        "batch_size=64 optimizer=null",
        "batch_size=64 optimizer={name: sgd}",
    ]
    assert [job.experiment.training.batch_size for job in swept] == [16, 16, 64, 64]


def test_the_last_of_two_values_of_a_key_counts():
    swept, alone = due(f"{BATCH}=16,64", f"{BATCH}=48"), due(f"{BATCH}=48")
    assert swept == alone
    assert {job.varied for job in swept} == {""}


def test_a_sweep_skips_finished_runs_and_compares_values(command, here, image_folder):
    fixed = [f"--data={image_folder}", TINY]
    alone = here("run", "1-2", *fixed, "--set=training.epochs=1")
    assert alone.returncode == 0, alone.err
    words = ["1-2", *fixed, "--set=training.epochs=1,2"]
    plan = here("plan", *words)
    assert plan.returncode == 0, plan.err
    assert "experiments: 4, seeds: 1, runs: 4 (sharing 2 sets of checkpoints)" in plan.out
    assert len(re.findall(r"^ *2 \+ augmentation · epochs=[12] ", plan.out, re.MULTILINE)) == 2
    assert "02_augmentation epochs=2\n" in plan.out
    ran = here("run", *words)
    assert ran.returncode == 0, ran.err
    assert ran.out.count("already finished") == 2
    assert "4/4 + augmentation · epochs=2  test accuracy" in ran.out
    assert len(re.findall(r"^\d .+epochs=\d +[\d.]+ % +[\d.]+ % .* 1 ", ran.out, re.MULTILINE)) == 4
    runs = {(r.data.tags["rung"][1], r.data.params["training.epochs"]): r for r in
            runs_of(command.uri)}  # fmt: skip
    assert len(runs) == len(runs_of(command.uri)) == 4
    # like separate commands, a sweep makes a parent run per value; the ladder tag names the value
    parents = {run.data.tags["modified"]: run for run in runs_of(command.uri, "ladder")}
    assert len(parents) == len(runs_of(command.uri, "ladder")) == 2
    for (rung, epochs), run in runs.items():
        parent = parents[run.data.tags["modified"]]
        assert run.data.tags["modified"].endswith(f"training.epochs={epochs}")
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert parent.data.tags["ladder"].endswith(f"training.epochs={epochs}")
        assert parent.info.status == "FINISHED"
        if rung == "2":
            assert parent.data.metrics["test_accuracy"] == run.data.metrics["test_accuracy"]
    page = (command.folder / "reports" / "resnet-ladder" / "report.html").read_text("utf-8")
    assert "Compared: squares" in page


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (f"{BATCH}=16,x", f"--set {BATCH}=x: 02_augmentation: {BATCH}: 'x' is not allowed"),
        ("model.identity_blocks=1,2", "model.identity_blocks: 1 is not allowed; it must be a list"),
        ("training.optimizer=name: sgd, momentum: 0.9", "not valid YAML"),
        ("training.batchsize=1,2", "unknown key (did you mean 'batch_size'?)"),
    ],
)
def test_a_mistake_prints_one_line(here, override, told):
    refused(here("run", "2", "--data=digits", f"--set={override}"), told)
