"""Compares the report's statistics with results of least squares, SciPy and a simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_known import firmer, t_interval
from scipy import stats

from report.analysis import Bound, statistics


def samples(*rows):
    """Returns a dict of samples named s0, s1, ...; each row is a sample's accuracies and scale."""
    return {
        f"s{i}": statistics.Sample(dict(enumerate(values)), scale)
        for i, (values, scale) in enumerate(rows)
    }


def test_the_shared_deviation_agrees_with_weighted_least_squares():
    rng = np.random.default_rng(0)
    rows = [(rng.normal(0.8, d, n), d) for d, n in ((0.01, 3), (0.002, 2), (0.02, 4), (0.03, 1))]
    shared = statistics.Shared.of(samples(*rows))
    assert (shared.freedom, shared.own) == (6, frozenset())
    names = np.repeat(range(len(rows)), [len(values) for values, _ in rows])
    y = np.concatenate([values for values, _ in rows])
    weights = np.concatenate([np.full(len(v), d**-2) for v, d in rows])
    x = pd.get_dummies(names).to_numpy(float)
    root = np.sqrt(weights)
    _, (squares,), *_ = np.linalg.lstsq(x * root[:, None], y * root)
    assert shared.factor == pytest.approx(squares / 6)
    alone = shared.estimate("s3", samples(*rows)["s3"])
    assert math.sqrt(alone.variance) == pytest.approx(0.03 * math.sqrt(squares / 6))


def means(samples):
    """Returns a dict from each sample's name to a ``Contrast`` that estimates the sample's mean."""
    shared = statistics.Shared.of(samples)
    estimates = {name: shared.estimate(name, sample) for name, sample in samples.items()}
    return {name: statistics.contrast([(1, e)]) for name, e in estimates.items()}


def test_an_interval_needs_four_degrees_of_freedom():
    close = (0.8, 0.801)
    for rows, known in (([close] * 3, False), ([close] * 4, True), ([close] * 3 + [(0.8,)], False)):
        found = samples(*((values, 0.01) for values in rows))
        assert math.isnan(means(found)["s0"].interval()[0]) is not known


def test_seeds_with_equal_accuracies_give_no_interval():
    same = means(samples(*[((0.8, 0.8), 0.01)] * 6))["s0"]
    assert np.isnan([*same.interval(), same.p]).all()


def test_a_row_that_varies_more_than_the_others_uses_its_own_deviation():
    calm = [((0.8, 0.81, 0.79), 0.01)] * 4
    wild = (0.7, 0.9, 0.1, 0.8, 0.75)
    found = samples(*calm, (wild, 0.01))
    shared = statistics.Shared.of(found)
    assert shared.own == {"s4"}
    assert shared.freedom == 8
    assert shared.factor == pytest.approx(1)
    assert means(found)["s4"].interval() == pytest.approx(t_interval(wild))
    # a gain that uses two deviations has Satterthwaite's degrees of freedom
    gain = statistics.gain(shared.estimate("s0", found["s0"]), shared.estimate("s4", found["s4"]))
    own, other = np.var(wild, ddof=1) / 5, 0.01**2 / 3
    shared_freedom = 1 / (1 / 8 + 1 / statistics.GUESS)
    freedom = (own + other) ** 2 / (own**2 / 4 + other**2 / shared_freedom)
    assert (gain.error, gain.freedom) == pytest.approx((math.sqrt(own + other), freedom))
    # two seeds may agree by chance, so a row that varies less than the others stays in the pool
    assert not statistics.Shared.of(samples(*calm, ((0.8, 0.8), 0.01))).own


def test_seeds_are_paired_only_if_their_accuracies_are_correlated():
    base = np.array([0.80, 0.82, 0.79, 0.83, 0.81])
    together, apart = base + 0.05 + [0.001, -0.001, 0, 0.001, 0], base[::-1] + 0.05
    for before, after, paired in (
        (base, together, True),
        (base, apart, False),
        (base[:4], together[:4], False),  # four pairs are too few
    ):
        found = samples((before, 0.01), (after, 0.01), ((0.7, 0.71), 0.01))
        shared = statistics.Shared.of(found)
        gain = statistics.gain(*(shared.estimate(name, found[name]) for name in ("s0", "s1")))
        assert gain.paired is paired
        assert gain.value == pytest.approx(0.05, abs=1e-3)
        if paired:
            assert gain.interval() == pytest.approx(t_interval(after - base))
            assert gain.p == pytest.approx(stats.ttest_1samp(after - base, 0).pvalue)


ACCURACIES = st.lists(st.floats(0.7, 0.9), min_size=1, max_size=5)
ROWS = st.lists(st.tuples(ACCURACIES, st.floats(0.002, 0.02)), min_size=2, max_size=6)


@given(ROWS, st.floats(-0.2, 0.2))
def test_the_interval_and_the_p_value_never_contradict_each_other(rows, zero):
    """The p value is below 5 % exactly when the interval does not contain zero."""
    for known in means(samples(*rows)).values():
        off = known._replace(value=known.value - 0.8 - zero)
        low, high = off.interval()
        if not math.isnan(low) and min(abs(low), abs(high)) > 1e-9:
            assert (low > 0 or high < 0) == (off.p < 0.05)


LEVEL = ([0.75] * 4, 0.015625)
MASKED = [
    ([0.75], 0.015625),
    LEVEL,
    ([0.75, 0.75, 0.875], 0.00265),
    LEVEL,
    ([0.75, 0.75, 0.75, 0.875], 0.015625),
    ([0.75, 0.75, 0.890625], 0.0027),
]
"""Two rows vary far more than their scales allow. Each row hides the other from the F test."""


@given(ROWS, st.integers(0, 5), st.floats(0.6, 1.0), st.floats(0.001, 0.1))
@example(MASKED, 2, 0.8, 0.05)
@settings(max_examples=300, deadline=None)
def test_another_run_at_the_mean_never_makes_a_verdict_less_firm(rows, at, middle, room):
    """If ``Shared.own`` stays the same, the verdicts of all systems are at least as firm as before.

    ``own`` never gains only the system with the new run. If it gains another system too, each
    of the two had hidden the other from the F test, so the old shared deviation was too large.
    """
    name = f"s{at % len(rows)}"
    before = samples(*rows)
    values = before[name].values
    mean = float(np.mean([*values.values()]))
    after = before | {name: before[name]._replace(values=values | {len(values): mean})}
    bound = Bound(min=middle - room, max=middle + room)
    old, new = (
        {name: bound.judge(*contrast.interval()) for name, contrast in means(found).items()}
        for found in (before, after)
    )
    was, now = (statistics.Shared.of(found).own for found in (before, after))
    if was == now:
        assert not firmer(old, new)
    elif name not in now - was:
        assert not firmer({name: old[name]}, {name: new[name]})
    assert now - was != {name}


def test_the_seed_floor_is_the_deviation_if_errors_are_independent():
    generator = np.random.default_rng(0)
    truth = generator.random(500)
    seeds = (generator.random((20_000, 500)) < truth).mean(axis=1)
    assert statistics.seed_floor(truth) == pytest.approx(seeds.std(), rel=0.02)
