"""Tests steps: the gain over several seeds, and the image-by-image comparison of the two rungs."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from report_known import SAID, N, csv, pooled
from report_store import LADDER, right
from scipy import stats

from report import analysis
from report.analysis import statistics


def test_steps_of_one_seed_are_compared_image_by_image(full):
    raw, published = csv(full[1], "steps", "to"), SAID.published
    for before, after in pairwise(LADDER):
        a, b = (right(10_000, round(10_000 * published[n])) for n in (before, after))
        lost, gained = (a & ~b).sum(), (b & ~a).sum()
        p = stats.binomtest(int(gained), int(gained + lost)).pvalue
        row = raw.loc[after]
        assert row["mcnemar_p"] == pytest.approx(p)
        assert (row["newly_right"], row["newly_wrong"]) == (gained, lost)
        # if both networks are wrong, they agree: both predict the class after the true class
        assert row["agreement"] == pytest.approx((a == b).mean())
        assert row["gain"] == pytest.approx(published[after] - published[before])
        assert row[["interval_low", "p", "p_holm"]].isna().all()


def test_a_step_with_several_seeds_has_an_interval_and_p_values(two_seeds):
    store, counts = two_seeds
    step, known = analysis.load(store.uri).steps[0], pooled(counts)
    gains = (np.array(counts[LADDER[1]]) - counts[LADDER[0]]) / N
    assert step.gains == pytest.approx(gains)
    assert step.gain == pytest.approx(gains.mean())
    half = known.half(**dict.fromkeys(LADDER[:2], 1 / 3))
    assert step.interval == pytest.approx((gains.mean() - half, gains.mean() + half))
    freedom = 1 / (1 / 4 + 1 / statistics.GUESS)
    error = half / stats.t.ppf(0.975, freedom)
    assert step.p == pytest.approx(2 * stats.t.sf(gains.mean() / error, freedom))
    per_seed = []
    for seed in range(3):
        a, b = (right(N, counts[name][seed], seed) for name in LADDER[:2])
        lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
        per_seed.append(stats.binomtest(gained, gained + lost).pvalue)
    assert step.mcnemar_p == pytest.approx(np.median(per_seed))


def test_holm_corrects_the_p_values_of_all_steps(two_seeds):
    content = analysis.load(two_seeds[0].uri)
    p = 0.01, 0.2, 0.03
    steps = [
        replace(content.steps[0], after=replace(content.systems[1], name=str(i)), p=value)
        for i, value in enumerate(p)
    ]
    assert analysis.holm(steps) == pytest.approx({"0": 3 * p[0], "2": 2 * p[2], "1": p[1]})


def test_a_seed_without_an_accuracy_is_not_paired(store):
    for rung, seed, count in ((0, 0, 700), (0, 1, 700), (1, 0, 800), (1, 1, 820)):
        gone = {"test_accuracy": math.nan} if (rung, seed) == (0, 0) else {}
        store.add(LADDER[rung], right(N, count), seed=seed, metrics=gone)
    step = analysis.load(store.uri).steps[0]
    assert step.gains == pytest.approx([0.12])
    assert math.isnan(step.interval[0])
