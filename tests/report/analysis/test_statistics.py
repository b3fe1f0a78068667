"""One deviation between seeds for all rows: against least squares, SciPy and simulation."""

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
    """By name, systems of accuracies and a scale."""
    return {
        f"s{i}": statistics.Sample(dict(enumerate(values)), scale)
        for i, (values, scale) in enumerate(rows)
    }


def test_the_shared_deviation_is_a_weighted_analysis_of_variance():
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


def test_below_four_degrees_of_freedom_nothing_is_known():
    close = (0.8, 0.801)
    for rows, known in (([close] * 3, False), ([close] * 4, True), ([close] * 3 + [(0.8,)], False)):
        found = samples(*((values, 0.01) for values in rows))
        shared = statistics.Shared.of(found)
        low, _ = statistics.contrast([(1, shared.estimate("s0", found["s0"]))]).interval()
        assert math.isnan(low) is not known
    # nor where no seed differs from another: they would all be points
    found = samples(*[((0.8, 0.8), 0.01)] * 6)
    same = statistics.Shared.of(found).estimate("s0", found["s0"])
    assert math.isnan(statistics.contrast([(1, same)]).interval()[0])
    assert math.isnan(statistics.contrast([(1, same)]).p)


def test_a_row_whose_seeds_contradict_the_others_goes_by_its_own():
    calm = [((0.8, 0.81, 0.79), 0.01)] * 4
    wild = (0.7, 0.9, 0.1, 0.8, 0.75)
    found = samples(*calm, (wild, 0.01))
    shared = statistics.Shared.of(found)
    assert shared.own == {"s4"}
    assert shared.freedom == 8
    assert shared.factor == pytest.approx(1)
    low, high = statistics.contrast([(1, shared.estimate("s4", found["s4"]))]).interval()
    assert (low, high) == pytest.approx(t_interval(wild))
    # its gain over another has Satterthwaite's degrees of freedom
    gain = statistics.gain(shared.estimate("s0", found["s0"]), shared.estimate("s4", found["s4"]))
    own, other = np.var(wild, ddof=1) / 5, 0.01**2 / 3
    shared_freedom = 1 / (1 / 8 + 1 / statistics.GUESS)
    freedom = (own + other) ** 2 / (own**2 / 4 + other**2 / shared_freedom)
    assert (gain.error, gain.freedom) == pytest.approx((math.sqrt(own + other), freedom))
    # two that agree by chance do not go by their own: that would be firmer
    assert not statistics.Shared.of(samples(*calm, ((0.8, 0.8), 0.01))).own


def test_pairs_are_used_only_if_they_are_correlated():
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


ROWS = st.lists(
    st.tuples(
        st.lists(st.floats(0.7, 0.9), min_size=1, max_size=5),
        st.floats(0.002, 0.02),
    ),
    min_size=2,
    max_size=6,
)


@given(ROWS, st.floats(-0.2, 0.2))
def test_the_interval_and_the_test_never_contradict_each_other(rows, zero):
    """Without zero in it p is under 5 %."""
    found = samples(*rows)
    shared = statistics.Shared.of(found)
    for name, sample in found.items():
        known = statistics.contrast([(1, shared.estimate(name, sample))])
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
"""Two rows that vary far too much for their scales, each hidden from the F test by the other."""


@given(ROWS, st.integers(0, 5), st.floats(0.6, 1.0), st.floats(0.001, 0.1))
@example(MASKED, 2, 0.8, 0.05)
@settings(max_examples=300, deadline=None)
def test_a_run_at_the_mean_of_its_system_never_makes_a_verdict_less_firm(rows, at, middle, room):
    """Nor another system's, unless a system turns out to go by its own seeds.

    That its own seeds are taken to contradict the others takes that another system's are as well:
    then both were hidden before, and the deviation of all was too wide for everybody.
    """
    name = f"s{at % len(rows)}"
    before = samples(*rows)
    values = before[name].values
    mean = float(np.mean([*values.values()]))
    after = before | {name: before[name]._replace(values=values | {len(values): mean})}
    bound = Bound(min=middle - room, max=middle + room)
    (old, was), (new, now) = (
        (
            {
                name: bound.judge(*statistics.contrast([(1, e)]).interval())
                for name in found
                for e in [shared.estimate(name, found[name])]
            },
            shared,
        )
        for found in (before, after)
        for shared in [statistics.Shared.of(found)]
    )
    if was.own == now.own:
        assert not firmer(old, new)
    elif name not in now.own - was.own:
        assert not firmer({name: old[name]}, {name: new[name]})
    assert now.own - was.own != {name}


def test_the_floor_is_what_independent_errors_give():
    generator = np.random.default_rng(0)
    truth = generator.random(500)
    seeds = (generator.random((20_000, 500)) < truth).mean(axis=1)
    assert statistics.seed_floor(truth) == pytest.approx(seeds.std(), rel=0.02)
