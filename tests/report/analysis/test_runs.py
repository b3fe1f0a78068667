"""Tests reports on complete, unfinished, damaged and missing runs in MLflow."""

import math
from dataclasses import replace

import numpy as np
import pytest
from report_known import N, build, fails_in_one_line, made_run, reported
from report_store import LADDER, curve, right

from report import analysis
from report.presentation import output
from report.presentation.tables import numbers
from report.presentation.tables.progression import progression
from resnet import UserError


def test_the_last_epochs_at_the_tested_learning_rate_give_the_variance_of_an_epoch():
    run = made_run(LADDER[1], 0, 80, 20)
    val = run.history["val_accuracy"].to_numpy()
    assert run.jumps == pytest.approx(np.mean(np.diff(val[-10:]) ** 2) / 2)
    early = replace(run, metrics=run.metrics | {"tested_epoch": 4.0})  # before the rate drops
    assert early.jumps == pytest.approx(np.mean(np.diff(val[9:19]) ** 2) / 2)
    few = replace(run, history=curve(30, 0.8, 0.7, drops=(29,)))  # only 2 epochs at the tested rate
    last = few.history["val_accuracy"].to_numpy()[-10:]
    assert few.jumps == pytest.approx(np.mean(np.diff(last) ** 2) / 2)
    assert math.isnan(replace(run, metrics={**run.metrics, "tested_epoch": math.nan}).jumps)
    once = replace(run, history=run.history[:1], metrics={"epochs_run": 1.0, "tested_epoch": 1.0})
    assert math.isnan(once.jumps)
    assert run.lacks == ""
    assert once.lacks == "one epoch does not show how much validation accuracy varies"
    gone = replace(run, metrics={"epochs_run": 30.0})
    assert gone.lacks == "the run lacks its test accuracy and its curve of validation accuracy"


@pytest.mark.parametrize(
    ("status", "told"),
    [("RUNNING", "still running"), ("FAILED", "failed"), ("KILLED", "killed")],
)
def test_a_rung_without_a_finished_run_shows_the_state_of_its_newest_run(store, status, told):
    store.add(LADDER[0], right(N, 700))
    store.add(LADDER[1], right(N, 800), history=curve(7, 0.5, 0.4), status=status)
    content = analysis.load(store.uri)
    assert content.systems[1].waiting == told
    headings, _, row, *_ = progression(content).texts()
    cells = dict(zip(headings, row, strict=True))
    assert cells["here"] == told
    assert (cells["difference"], cells["95 % interval"]) == (numbers.NONE,) * 2
    assert content.systems[1].verdict == "not run"
    judged = {j.claim.id: j for j in content.claims}
    assert told in judged["augmentation-train"].evidence


def test_the_report_names_missing_and_damaged_artifacts(store):
    ids = [store.add(LADDER[i], right(N, 700 + 50 * i)) for i in range(4)]
    for name in ("mistakes.png", "confusion_matrix.csv", "experiment.yaml"):
        store.artifact(ids[3], name).unlink()
    predictions = [store.artifact(run, "test_predictions.csv") for run in ids]
    predictions[0].unlink()
    predictions[1].write_bytes(b"\xff no table")
    shorter = predictions[2].read_text().splitlines()[:-300]
    predictions[2].write_text("\n".join(shorter))
    content = analysis.load(store.uri)
    assert [s.verdict for s in content.systems[:3]] == ["undecided"] * 3
    told = " ".join(content.notes)
    assert told.count("test_predictions.csv is missing or damaged") == 3
    assert "but the run says 0.8" in told  # 300 predictions are missing
    assert content.pictured.classes == tuple("0123456789")  # class names were in the deleted matrix
    text = (output.write(content, store.folder / "out") / output.PAGE).read_text()
    assert "The run has no images of its mistakes." in text
    vgg = store.add("vgg", right(N, 600))  # after the next line, only this run has predictions
    store.artifact(ids[3], "test_predictions.csv").unlink()
    assert analysis.load(store.uri).pictured.id == vgg
    store.client.delete_run(vgg)
    store.client.delete_run(ids[3])
    text = (build(store) / output.PAGE).read_text()
    assert 'href="#mistakes"' not in text
    assert "test_predictions.csv is missing" in text


def test_the_report_names_rungs_without_curves(store):
    store.add(LADDER[0], right(N, 700), history=curve(25, 0.9, 0.8).iloc[:0])
    assert 'href="#curves"' not in (build(store) / output.PAGE).read_text()
    store.add(LADDER[1], right(N, 710))  # with curves
    text = (build(store) / output.PAGE).read_text()
    assert 'href="#curves"' in text
    assert text.count("the runs recorded no curves.") == 1
    assert f"{LADDER[0]}: the runs recorded no curves." in text
    store.add(LADDER[0], right(N, 710), seed=1)  # with curves
    assert "the runs recorded no curves." not in (build(store) / output.PAGE).read_text()


def test_an_unreadable_store_is_reported_without_its_password(tmp_path, two_seeds):
    database = tmp_path / "mlflow.db"
    database.write_bytes(b"this is no database " * 100)
    uri = f"sqlite:///{database}"
    fails_in_one_line(reported("--tracking-uri", uri), "is not a complete database of MLflow")
    good = (two_seeds[0].folder / "mlflow.db").read_bytes()
    for damaged in (good[: len(good) // 2], good[:8192] + b"\xff" * (len(good) - 8192)):
        database.write_bytes(damaged)
        with pytest.raises(UserError):
            analysis.load(uri)
    with pytest.raises(UserError):
        analysis.load("gopher://host")
    secret = "postgresql+psycopg2://me:s3cret@127.0.0.1:1/x"
    with pytest.raises(UserError, match=r"me:\*\*\*@") as error:
        analysis.load(secret)
    assert "s3cret" not in str(error.value)
