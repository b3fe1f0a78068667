"""Pools all systems (rungs and baselines) to estimate the deviation between seeds.

95 % intervals (low, high) and p values use this deviation. Accuracies are from 0 to 1.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

ALPHA = 0.05
LEAST = 4
"""Intervals need a deviation with at least this number of degrees of freedom."""
GUESS = 6
"""The degrees of freedom of a system's scale; with six, the scale's typical error is 29 %.

With six, at least 93.9 % of intervals contain the true value in each case of docs/evidence.md. With
eight, this share falls to 92.8 %. If scales count as exact, it falls to 89.5 %. The option
``--worth`` of ``python -m docs.coverage`` computes these figures.
"""
CONTRADICTED = 0.01
"""If the F test's p value is below this, a system's seeds contradict the shared deviation."""

Interval = tuple[float, float]
NO_INTERVAL = (math.nan, math.nan)


class Sample(NamedTuple):
    """A system's accuracies by seed, and ``scale``, a rough estimate of their deviation."""

    values: Mapping[int, float]
    scale: float

    @property
    def freedom(self) -> int:
        return max(len(self.values) - 1, 0)

    @property
    def squares(self) -> float:
        return float(np.var([*self.values.values()]) * len(self.values)) if self.values else 0.0


class Estimate(NamedTuple):
    """A system's accuracies by seed, and the variance of one run's accuracy.

    ``freedom`` is the variance's number of degrees of freedom. Estimates with the same ``source``
    derive their variances from the same deviation.
    """

    values: Mapping[int, float]
    variance: float
    freedom: float
    source: Hashable


class Contrast(NamedTuple):
    """A weighted sum of means and its standard error (NaN if a deviation is unknown)."""

    value: float
    error: float
    freedom: float
    paired: bool = False

    def interval(self, tests: int = 1) -> Interval:
        """Returns the 95 % interval, with Bonferroni's correction for ``tests`` intervals."""
        if not self.error > 0:
            return NO_INTERVAL
        half = float(stats.t.isf(ALPHA / 2 / tests, self.freedom)) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """The two-sided p value of the hypothesis that the sum is zero."""
        if not self.error:
            return math.nan
        above = float(stats.t.cdf(self.value / self.error, self.freedom))
        return 2 * min(above, 1 - above)


@dataclass(frozen=True)
class Shared:
    """A deviation between seeds that all systems share, in units of each system's scale.

    A run's variance is ``factor`` times the squared scale of the run's system. ``freedom`` is the
    factor's number of degrees of freedom. The systems in ``own`` use the deviation of their own
    seeds, because these seeds contradict the factor.
    """

    factor: float = math.nan
    freedom: int = 0
    own: frozenset[str] = frozenset()

    @classmethod
    def of(cls, samples: Mapping[str, Sample]) -> "Shared":
        """Pools the deviations of all systems.

        A system that varies significantly more than the other systems (F test at 1 %) is left out.
        A system that varies less stays, because its few seeds may agree by chance.
        """
        # A deviation estimated from two seeds is often off by more than half. A row of n seeds adds
        # n - 1 degrees of freedom to the pool.
        pool = {name: s for name, s in samples.items() if s.freedom}
        own = {name for name, s in pool.items() if not s.scale > 0}

        def ratio(names: Iterable[str]) -> tuple[float, int]:
            rows = [pool[name] for name in sorted(names)]  # a sum's last bits depend on the order
            squares = [(row.squares / row.scale**2, row.freedom) for row in rows]
            total, freedom = map(sum, zip(*squares, strict=True)) if squares else (0.0, 0)
            return total / freedom if freedom else math.nan, freedom

        def p(name: str) -> float:
            (mine, freedom), (others, of) = ratio([name]), ratio(pool.keys() - own - {name})
            # without this, a row's two seeds could agree by chance and exclude a row of five seeds
            if of < LEAST or not others:
                return 1.0
            return float(stats.f.sf(mine / others, freedom, of))

        # exclude one at a time: the worst system may hide other systems that vary too much
        while left := sorted(pool.keys() - own):
            worst = min(left, key=p)
            if p(worst) >= CONTRADICTED:
                break
            own.add(worst)
        return cls(*ratio(pool.keys() - own), frozenset(own))

    def estimate(self, name: str, sample: Sample) -> Estimate:
        """Returns a system's estimate; a system in ``own`` gets the deviation of its own seeds."""
        own = name in self.own
        scale = sample.scale or math.nan  # the scale is zero if the runs diverged
        variance = sample.squares / sample.freedom if own else self.factor * scale**2
        freedom = float(sample.freedom) if own else scaled(self.freedom)
        # with fewer than four degrees of freedom, Student's quantile is above 3
        enough = (sample.freedom if own else self.freedom) >= LEAST
        source = (self, name if own else "")
        return Estimate(sample.values, variance if enough else math.nan, freedom, source)


def scaled(seeds: float) -> float:
    """Combines the degrees of freedom of a deviation (``seeds``) and of a scale (``GUESS``)."""
    return 1 / (1 / seeds + 1 / GUESS) if seeds else 0.0


def contrast(terms: Iterable[tuple[float, Estimate]]) -> Contrast:
    """Estimates a weighted sum of systems' means; each term is a weight and an estimate.

    If the estimates have several sources, the degrees of freedom are Satterthwaite's.
    """
    terms = list(terms)
    if not all(e.values for _, e in terms):
        return Contrast(math.nan, math.nan, math.nan)
    # estimates of one source share an error: add their variances before pooling the sources
    variances: dict[Hashable, float] = {}
    for weight, e in terms:
        one = weight**2 * e.variance / len(e.values)
        variances[e.source] = variances.get(e.source, 0.0) + one
    freedom = {e.source: e.freedom for _, e in terms}
    total = sum(variances.values())
    joint = sum(v**2 / max(freedom[source], 1e-9) for source, v in variances.items())
    value = sum(weight * float(np.mean([*e.values.values()])) for weight, e in terms)
    return Contrast(value, math.sqrt(total), total**2 / joint if joint else math.nan)


def gain(before: Estimate, after: Estimate) -> Contrast:
    """Estimates the difference of two systems' means.

    Usually, the two means' variances are added. If the systems share five or more seeds and their
    accuracies correlate (at the 5 % level), Student's interval of the differences is used instead.
    """
    whole = contrast([(1, after), (-1, before)])
    seeds = sorted(before.values.keys() & after.values.keys())
    a, b = ([e.values[seed] for seed in seeds] for e in (before, after))
    # Pairing costs degrees of freedom. The same seed gives two rungs the same order of images, but
    # their accuracies need not be correlated.
    if len(seeds) <= LEAST or math.isnan(whole.error) or not (np.ptp(a) and np.ptp(b)):
        return whole
    if stats.pearsonr(a, b, alternative="greater").pvalue >= ALPHA:
        return whole
    gains = np.subtract(b, a)
    error = float(np.std(gains, ddof=1)) / math.sqrt(len(seeds))
    return Contrast(float(np.mean(gains)), error, len(seeds) - 1, paired=True)


def weighted(weights: Mapping[str, float], estimates: Mapping[str, Estimate]) -> Contrast:
    """Estimates a weighted sum of means; uses :func:`gain` if the sum is a plain difference."""
    if sorted(weights.values()) == [-1, 1]:
        before, after = sorted(weights, key=weights.__getitem__)
        return gain(estimates[before], estimates[after])
    return contrast((weight, estimates[name]) for name, weight in weights.items())


def least(found: Sequence[Contrast]) -> tuple[Contrast, Interval]:
    """Returns the least of several contrasts, and an interval for the least of their true values.

    The lower end is the least of all lower ends at 95 % (an intersection-union test). The upper end
    is the least of all upper ends with Bonferroni's correction (Holm's first step). The least
    contrast's own interval would be too narrow: its runs also decide which contrast is least.
    """
    low = min(contrast.interval()[0] for contrast in found)
    high = min(contrast.interval(len(found))[1] for contrast in found)
    return min(found, key=lambda contrast: contrast.value), (low, high)


def student(values: Sequence[float]) -> Interval:
    """Returns Student's interval of a mean; NaN for fewer than three values or if all are equal."""
    if len(values) < 3 or np.ptp(values) == 0:
        return NO_INTERVAL
    half = float(stats.t.isf(ALPHA / 2, len(values) - 1) * stats.sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def majority(inside: int, runs: int) -> tuple[float, float]:
    """Returns p values of "at most half the runs are inside the bound" and "at least half are"."""
    at_most, at_least = (
        stats.binomtest(inside, runs, 0.5, alternative=side).pvalue for side in ("greater", "less")
    )
    return float(at_most), float(at_least)


def seed_floor(truth: np.ndarray) -> float:
    """Returns the deviation between seeds if all errors are independent: sqrt(sum p (1 - p)) / n.

    ``truth`` (n,) holds p, the predicted probability of the true class, for each of n images.
    On a given image, two runs err almost independently (Jordan, arXiv 2304.01910), so each image
    adds a Bernoulli variance. The floor is too high for underconfident networks.
    """
    return float(np.sqrt((truth * (1 - truth)).sum()) / len(truth))
