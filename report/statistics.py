"""Intervals, tests and power, where statsmodels leaves something to say or to guard.

Accuracies are fractions of 1; every interval is two-sided at 95 % and returned as (low, high).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportions_ztost
from statsmodels.stats.weightstats import DescrStatsW

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 10_000
SAME_SEEDS = 5
"""Equal values decide from so many seeds on, since fewer may agree by chance: 0.5 ** 5 < 5 %."""

Interval = tuple[float, float]
NO_INTERVAL = (math.nan, math.nan)


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval of a mean over two or more seeds.

    Where they do not differ it is a point, and none below ``SAME_SEEDS``.
    """
    if np.ptp(values) == 0:  # exactly a point, whatever the mean is rounded to
        return (float(values[0]),) * 2 if len(values) >= SAME_SEEDS else NO_INTERVAL
    low, high = DescrStatsW(values).tconfint_mean(ALPHA)
    return float(low), float(high)


def prediction_interval(values: Sequence[float]) -> Interval:
    """Where one run after two or more would lie: t s sqrt(1 + 1/n) about their mean."""
    n = len(values)
    if np.ptp(values) == 0 and n < SAME_SEEDS:
        return NO_INTERVAL
    half = stats.t.ppf(1 - ALPHA / 2, n - 1) * np.std(values, ddof=1) * math.sqrt(1 + 1 / n)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def equivalent_over_seeds(values: Sequence[float], low: float, high: float) -> float:
    """P of two one-sided t-tests (TOST) that the mean over seeds lies outside of a band.

    It is at most 2.5 % exactly where :func:`t_interval` lies inside the band.
    """
    if np.ptp(values) == 0:
        return float(not low <= values[0] <= high) if len(values) >= SAME_SEEDS else math.nan
    return float(DescrStatsW(values).ttost_mean(low, high)[0])


def equivalent_of_one(correct: int, n: int, low: float, high: float) -> float:
    """The same for one run's share of n images, by the test that Wilson's interval inverts."""
    return float(proportions_ztost(correct, n, low, min(high, 1 - 1e-9), prop_var="limits")[0])


def gain_p(gains: Sequence[float]) -> float:
    """Two-sided p of the one-sample t-test that the mean gain over two or more seeds is zero."""
    if np.ptp(gains) == 0:  # the t statistic is 0/0 or infinite
        return float(gains[0] == 0) if len(gains) >= SAME_SEEDS else math.nan
    return float(DescrStatsW(gains).ttest_mean(0)[1])


def seed_floor(truth: np.ndarray) -> float:
    """Deviation over seeds that independent errors alone would give: sqrt(sum p (1 - p)) / n.

    Two runs' errors on one test set are near independent given the image (Jordan, arXiv
    2304.01910), so that each image adds its own Bernoulli variance, if a network is as sure as
    trainings are often right. Of one that is less sure than that it overstates.

    Args:
        truth: probability given to each image's true class, shape (images,).
    """
    return float(np.sqrt((truth * (1 - truth)).sum()) / len(truth))


def seeds_needed(gain: float, deviation: float) -> int | None:
    """Seeds a rung that :func:`gain_p`'s test at 5 % takes to detect a gain at 80 % power.

    Args:
        gain: true difference of the two rungs' means; its sign does not matter.
        deviation: standard deviation over seeds of either rung, in the gain's unit.

    Returns:
        The smallest number, at least 2; None if it is over ``MOST_SEEDS``, the gain is zero, or
        either is NaN.
    """
    if not abs(gain) > 0 or math.isnan(deviation):
        return None
    n = np.arange(2, MOST_SEEDS + 1)
    # the square of Student's t is F; a difference of two independent runs has twice the variance
    shift = n / 2 * (gain / max(deviation, 1e-9)) ** 2
    power = stats.ncf.sf(stats.f.isf(ALPHA, 1, n - 1), 1, n - 1, shift)
    enough = n[~(power < POWER)]  # beyond floating point it is NaN, and 1
    return int(enough[0]) if enough.size else None
