"""What runs cost in device hours."""

import pytest
from report_known import curve, right
from report_store import LADDER

from report import analysis
from report.presentation.tables.provenance import cost

N = 1000


def test_shared_epochs_are_trained_once(store):
    store.add(LADDER[0], right(N, 700), history=curve(10, 0.9, 0.8), start=1)
    shared = {"shared_epochs": 5.0}
    store.add(LADDER[1], right(N, 800), history=curve(10, 0.9, 0.8), metrics=shared, start=2)
    table = cost(analysis.load(store.uri)).frame.set_index("what")
    first, second = table.iloc[0], table.iloc[1]
    assert first["device_hours"] == pytest.approx(610 / 3600)
    assert second["device_hours"] == pytest.approx(305 / 3600)
