"""Intervals, tests and power, each a thin name for what SciPy computes.

Accuracies are fractions of 1; every interval is two-sided at 95 % and returned as (low, high).
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999

Interval = tuple[float, float]


def wilson(correct: int, n: int) -> Interval:
    """Wilson's interval of a proportion: what the test set's size alone leaves open."""
    interval = stats.binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def t_interval(values: Sequence[float]) -> Interval:
    """Student's interval of a mean over seeds; a point if the values do not differ.

    Args:
        values: at least two, finite.
    """
    values = np.asarray(values, "float64")
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def paired_interval(scores: np.ndarray) -> Interval:
    """Normal interval of the mean of one score an image, such as (A right) - (B right).

    Pairing by image takes out how hard each image is, which two separate intervals would count
    twice.

    Args:
        scores: shape (images,).
    """
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * stats.sem(scores)
    return float(scores.mean() - half), float(scores.mean() + half)


def bootstrap_interval(values: Sequence[float]) -> Interval:
    """Percentile bootstrap interval of a mean over seeds, the same at every call.

    With few seeds it is too narrow (it cannot reach beyond the values seen), which the page says.

    Args:
        values: at least two, finite.
    """
    interval = stats.bootstrap(
        (np.asarray(values, "float64"),),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """McNemar's exact test: two-sided p that two networks err equally often.

    Args:
        before: bool, shape (images,): which images one network got right.
        after: the same for the other.
    """
    lost, gained = int((before & ~after).sum()), int((~before & after).sum())
    return float(stats.binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0


def gain_p(gains: Sequence[float]) -> float:
    """Two-sided p of the one-sample t-test that the mean gain over seeds is zero.

    Args:
        gains: at least two, finite.
    """
    if np.ptp(gains) == 0:  # the t statistic is 0/0 or infinite
        return float(gains[0] == 0)
    return float(stats.ttest_1samp(gains, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of several p values, in the order given."""
    order = np.argsort(p_values)
    corrected = np.asarray(p_values, "float64")[order] * np.arange(len(p_values), 0, -1)
    result = np.empty(len(p_values))
    result[order] = np.minimum(np.maximum.accumulate(corrected), 1)
    return result.tolist()


def seeds_needed(
    gain: float, deviation: float, power: float = 0.8, alpha: float = 0.05, most: int = 10_000
) -> int | None:
    """Seeds a rung that a two-sided two-sample t-test takes to detect a gain.

    Args:
        gain: true difference of the two rungs' means; its sign does not matter.
        deviation: standard deviation over seeds of either rung, in the gain's unit.
        power: probability of detecting it.
        alpha: level of the test.
        most: where to give up.

    Returns:
        The smallest number, at least 2; None if it is over ``most``, or the gain is zero.
    """
    if gain == 0:
        return None
    if deviation == 0:
        return 2

    def reached(n: int) -> bool:
        shift, freedom = abs(gain) / (deviation * np.sqrt(2 / n)), 2 * n - 2
        critical = stats.t.ppf(1 - alpha / 2, freedom)
        tails = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
        # SciPy gives NaN where a tail is beyond floating point: the power is then 1
        return bool(np.isnan(tails) or tails >= power)

    if not reached(most):
        return None
    low, high = 1, most  # the power rises with n: bisect
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
