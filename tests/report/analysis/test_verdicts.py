"""Tests that less evidence never gives a firmer verdict."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_known import (
    SAID,
    N,
    build,
    claim,
    firmer,
    judge,
    made_run,
    measured,
    pooled,
    rows,
)
from report_store import LADDER, right

from report import analysis
from report.presentation import output
from resnet import UserError


def test_the_verdict_changes_where_the_interval_touches_the_end_of_the_bound(two_seeds):
    store, counts = two_seeds
    for system in analysis.load(store.uri).systems[:2]:
        off = abs(np.mean(counts[system.name]) / N - SAID.published[system.name])
        half = pooled(counts).half(**{system.name: 1 / 3})
        fails, holds = max(off - half, 0), off + half
        for tolerance, verdict in (
            (holds * 1.0001, "holds"),
            (holds * 0.9999, "undecided"),
            (fails * 0.9999, "fails (under our assumptions)" if system.assumed else "fails"),
        ):
            if tolerance:
                assert replace(system, tolerance=tolerance).verdict == verdict


def test_a_run_without_predictions_leaves_every_accuracy_undecided(store):
    """If the report ignored such a run, the deviation that all rows share could be too small."""
    for i, counts in enumerate(((700, 701), (830, 831), (835, 836), (870, 873))):
        ids = [store.add(LADDER[i], right(N, k), seed=seed) for seed, k in enumerate(counts)]
    gain = claim(quantity="test_gain", against=LADDER[0], bound={"min": 0.05})
    assert judge(gain, measured(store)).verdict == "holds"
    assert analysis.load(store.uri).systems[1].verdict == "holds"
    store.artifact(ids[0], "test_predictions.csv").unlink()
    content = analysis.load(store.uri)
    assert {s.verdict for s in content.systems} == {"undecided", "not run"}
    judged = judge(gain, measured(store))
    assert judged.verdict == "undecided"
    assert "the deviation between seeds is not known" in judged.evidence
    assert all(math.isnan(step.p) for step in content.steps)
    (told,) = (note for note in content.notes if "one deviation" in note)
    assert told.startswith(f"{LADDER[3]}, seed 0 (run {ids[0][:8]}): the run lacks its predictions")
    assert told in (build(store) / output.PAGE).read_text()
    store.client.delete_run(ids[0])
    assert analysis.load(store.uri).systems[1].verdict == "undecided"  # only 3 degrees of freedom
    store.add(LADDER[3], right(N, 874), seed=2)
    assert analysis.load(store.uri).systems[1].verdict == "holds"


SEEDS = st.integers(60, 90).flatmap(
    lambda middle: st.lists(st.integers(middle, middle + 5), min_size=1, max_size=6)
)
KEYS = ("accuracy", "val_accuracy", "learning_rate")


@given(st.data(), st.lists(SEEDS, min_size=5, max_size=5), st.integers(3, 28))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_gap_in_a_run_makes_any_verdict_firmer(data, accuracies, drop):
    """Accuracies, seeds, and the missing parts of runs are arbitrary."""
    whole = []
    for rung, values in zip(LADDER, accuracies, strict=True):
        whole += [made_run(rung, seed, v, drop + seed) for seed, v in enumerate(values)]
    gapped = list(whole)
    for i in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        run = gapped[i]
        gap = data.draw(st.sampled_from(["predictions", "metric", "epochs", "end"]))
        if gap == "predictions":
            run = replace(run, predictions=run.predictions[:0])
        elif gap == "metric":
            gone = data.draw(
                st.sampled_from(["test_accuracy", "epochs_run", "stopped_epoch", "tested_epoch"])
            )
            run = replace(run, metrics={k: v for k, v in run.metrics.items() if k != gone})
        elif gap == "epochs":
            epochs = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=30))
            history = run.history.copy()
            history.loc[history.index.isin(epochs), data.draw(st.sampled_from(KEYS))] = np.nan
            run = replace(run, history=history)
        else:
            run = replace(run, history=run.history.iloc[: data.draw(st.integers(0, 29))])
        gapped[i] = run

    def judged(runs):
        systems = rows(runs)
        found = {c.id: judge(c, systems).verdict for c in SAID.claims}
        return found | {rung: system.verdict for rung, system in systems.items()}

    assert not firmer(judged(gapped), judged(whole))


@pytest.mark.parametrize("tag", ["seed", "role"])
def test_a_run_that_lost_a_tag_is_refused(store, tag):
    """Without the tag, the run could belong to any row."""
    run = store.add(LADDER[0], right(N, 828))
    store.client.delete_tag(run, tag)
    with pytest.raises(UserError, match=f"run {run[:8]} lacks the tag '{tag}'"):
        analysis.load(store.uri)
