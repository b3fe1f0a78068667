"""Tests the report's summary in a terminal."""

import re

import numpy as np
import pytest
from report_known import N
from report_store import LADDER, curve, right
from rich.console import Console

from report import analysis
from report.presentation import summary
from report.presentation.tables.message import ASSUMED
from resnet.study import Job, short


def test_trained_jobs_are_shown_with_other_runs_and_the_answer(two_seeds):
    store, counts = two_seeds
    console, content = Console(record=True, width=120), analysis.load(store.uri)
    due = [Job(content.study.experiment(name), 0) for name in LADDER[:3]]
    summary.trained(content, due, console)
    text = console.export_text()
    assert text.endswith("two are undecided and four are not run.\n")
    means = [np.mean(counts[name]) / N for name in LADDER[:2]]
    assert f"{100 * means[0]:.1f} %" in text
    assert f"{100 * (means[1] - means[0]):+.1f}" in text
    assert "not run" in text  # the state of rung 3; rungs 4 and 5 are not listed
    assert "5 + deeper" not in text


@pytest.mark.parametrize(
    ("profile", "counts"), [("full", (700,)), ("quick", (700,)), ("full", (699, 700, 701))]
)
def test_the_summary_fits_into_eighty_columns(store, profile, counts):
    for rung in LADDER[:-1]:
        for seed, count in enumerate(counts):
            store.add(rung, right(N, count), profile=profile, seed=seed)
    store.add(
        LADDER[-1], right(N, 700), history=curve(34, 0.5, 0.4), profile=profile, status="RUNNING"
    )
    console = Console(record=True, width=80)
    content = analysis.load(store.uri)
    summary.show(content, console)
    text = console.export_text()
    assert "…" not in text
    assert f"{short(LADDER[2])} + deeper" in text  # a rung's title may take several lines
    for c in content.claims:
        if c.verdict != "not run":
            assert f"{c.claim.id} " in text
    assert "claims not run" in text
    failing = [s for s in content.systems if s.verdict == ASSUMED]
    assert bool(failing) == (len(counts) > 1)
    for system in failing:
        assert f"{system.short} {ASSUMED}: {system.assumed}" in " ".join(text.split())
        numbers = (f"{100 * x:.1f} %" for x in (system.accuracy, system.published))
        assert re.search(rf"{system.short} .* {' +'.join(numbers)} +fails \*", text)
        assert "* under our assumptions" in text
