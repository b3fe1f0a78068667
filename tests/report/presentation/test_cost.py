"""What runs cost: operations, device hours, points for them."""

import pytest
from report_known import curve, right
from report_store import LADDER

from report import analysis
from report.presentation.tables.provenance import cost
from resnet.study import operations

N = 1000


def test_an_epoch_is_three_passes_a_training_image_and_one_that_validates():
    assert operations(10, 100, 0.2) == pytest.approx(2 * 10 * (3 * 80 + 20))


def test_shared_epochs_are_trained_once_and_unfinished_runs_stand_apart(store):
    each = 2 * 53_980_000 * 50_000 * (3 * 0.8 + 0.2)
    store.add(LADDER[0], right(N, 700), history=curve(10, 0.9, 0.8), start=1)
    shared = {"shared_epochs": 5.0}
    store.add(LADDER[1], right(N, 800), history=curve(10, 0.9, 0.8), metrics=shared, start=2)
    store.add(LADDER[0], right(N, 0), seed=1, history=curve(3, 0.5, 0.5), status="KILLED", start=3)
    store.add(LADDER[2], right(N, 0), history=curve(2, 0.5, 0.5), status="FAILED", start=4)
    table = cost(analysis.load(store.uri)).frame.set_index("what")
    first, second = table.iloc[0], table.iloc[1]
    assert first["petaflop_a_run"] == pytest.approx(10 * each / 1e15)
    assert first["petaflop_trained"] == pytest.approx(10 * each / 1e15)
    assert second["petaflop_trained"] == pytest.approx(5 * each / 1e15)
    assert first["device_hours"] == pytest.approx(610 / 3600)
    assert second["gain_a_petaflop"] == pytest.approx(0.1 / (10 * each / 1e15))
    lost = table.loc["never finished"]
    assert lost["runs"] == 2
    assert lost["device_hours"] == pytest.approx(5 * 61 / 3600)
