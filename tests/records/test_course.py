"""Tests the comparison of runs with recorded runs that have the same settings."""

import io
import re
from itertools import combinations

import pandas as pd
import pytest
from conftest import ROOT
from rich.console import Console

from resnet import events, records
from resnet.records.course import Course
from resnet.study import Job, Study
from resnet.terminal.display import Display


@pytest.fixture(scope="module")
def rows():
    """Maps each rung of both studies to its recorded runs. Rungs with only one run are left out."""
    found = {}
    for folder in (ROOT / "results", ROOT / "studies" / "nielsen2015" / "results"):
        for record in records.load_all(folder).values():
            if "~" not in record.tags["rung"]:
                found.setdefault(record.tags["rung"], []).append(record)
    return {rung: runs for rung, runs in found.items() if len(runs) > 1}


def warned(course, curve):
    return any(course.off(curve[:n]) for n in range(1, len(curve) + 1))


def test_no_recorded_run_is_off_course_when_compared_with_others_of_its_rung(rows):
    epochs = outside = 0
    for runs in rows.values():
        for run in runs:
            others = [other for other in runs if other is not run]
            curve = pd.Series(run.curves["val_accuracy"], range(1, len(run.time) + 1))
            for count in range(1, len(others) + 1):
                for chosen in combinations(others, count):
                    assert not warned(Course.of(chosen), [*curve])
            band = Course.of(others).epochs.reindex(curve.index).dropna()
            epochs += len(band)
            outside += (~curve[band.index].between(band["low"], band["high"])).sum()
    assert epochs > 250
    assert outside / epochs < 0.02


def test_a_third_seed_is_not_off_course_if_two_seeds_agree_by_chance(rows):
    (run, *_) = rows["01_shallow"]

    def seed(accuracy):
        return run.model_copy(update={"curves": run.curves | {"val_accuracy": [accuracy] * 60}})

    course = Course.of([seed(0.9784), seed(0.9784)])
    assert not warned(course, [0.9772] * 60)
    assert warned(course, [0.97] * 3)


def test_a_run_with_very_different_accuracies_is_off_course(rows):
    runs, others = rows["02_augmentation"], rows["01_template"]
    curve = runs[0].curves["val_accuracy"]
    course = Course.of(runs)
    assert warned(course, [0.9 * value for value in curve])
    assert warned(course, curve[:5] + [float("nan")] * len(curve[5:]))
    assert warned(course, [value + 0.1 for value in others[0].curves["val_accuracy"]])


def test_a_course_is_found_by_the_settings_and_the_dataset():
    study = Study.open()
    jobs = [Job(study.experiment(name), 7) for name in ("01_template", "02_augmentation")]
    changed = Job(study.experiment("02_augmentation", overrides=["training.batch_size=64"]), 0)
    cifar10 = next(iter(records.load_all(study.results).values())).tags["dataset_fingerprint"]
    recorded = {job.experiment.hash() for job in jobs}
    assert set(records.courses(study.results, jobs, cifar10)) == recorded
    assert records.courses(study.results, [changed], cifar10) == {}
    assert records.courses(study.results, jobs, "of other images") == {}
    assert records.courses(study.results / "none", jobs, cifar10) == {}


def history(values):
    keys = ("loss", "accuracy", "val_loss", "images_per_second", "learning_rate", "epoch_seconds")
    return [
        dict.fromkeys(keys, 0.5) | {"epoch": n, "val_accuracy": value}
        for n, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_shows_recorded_accuracies_and_warns_once(rows, terminal):
    job = Job(Study.open().experiment("02_augmentation"), 9)
    course = Course.of(rows["02_augmentation"])
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=terminal, color_system=None)
    display = Display(console, [job], None, {job.experiment.hash(): course})
    display(events.Started(job))
    curve = rows["02_augmentation"][0].curves["val_accuracy"]
    for n in range(1, 4):
        display(events.Epoch(job, history(curve[:n])))
    text = out.getvalue()
    low, high = course.recorded(3)
    assert f"recorded: {100 * low:.1f} to {100 * high:.1f} %" in text
    assert "off course" not in text
    assert max(map(len, text.splitlines())) <= 80 or not terminal

    low_curve = [*curve[:3], 0.1, 0.1, 0.1, 0.1, *curve[7:9]]
    for n in range(4, len(low_curve) + 1):
        display(events.Epoch(job, history(low_curve[:n])))
    text = " ".join(out.getvalue().split())
    assert text.count("off course") == 1
    assert re.search(r"off course: for three epochs .* \(this range is now [0-9.]+ % to", text)
