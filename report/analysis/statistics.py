"""Estimates the deviation between seeds that all systems share, and intervals and tests from it.

Accuracies are fractions of 1. Every interval is two-sided at 95 % and returned as (low, high).
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

ALPHA = 0.05
LEAST = 4
"""The fewest degrees of freedom that a deviation needs to decide anything."""
GUESS = 6
"""Degrees of freedom of a system's scale, which is a guess; six stands for an error of 29 %.

With six, at least 93.9 % of intervals contain the truth in each case of docs/evidence.md. With
eight, 92.8 % do in the worst case. If scales count as exact, 89.5 % do (``python -m docs.coverage
--worth``).
"""
CONTRADICTED = 0.01
"""The p value of the F test below which a system's seeds contradict the shared deviation."""

Interval = tuple[float, float]
NO_INTERVAL = (math.nan, math.nan)


class Sample(NamedTuple):
    """A system's accuracies by seed, and the deviation between seeds that its epochs suggest."""

    values: Mapping[int, float]
    scale: float

    @property
    def freedom(self) -> int:
        return max(len(self.values) - 1, 0)

    @property
    def squares(self) -> float:
        return float(np.var([*self.values.values()]) * len(self.values)) if self.values else 0.0


class Estimate(NamedTuple):
    """A system's accuracies by seed, and the variance of one run.

    ``freedom`` is the variance's number of degrees of freedom. Estimates with the same ``source``
    rest on the same estimated deviation.
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
        """Returns the 95 % interval, with Bonferroni's correction for several ``tests``."""
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
    """The deviation between seeds that all systems share, relative to each system's scale.

    The variance of a run is ``factor`` times the squared scale of the run's system. ``freedom`` is
    the factor's number of degrees of freedom. The systems in ``own`` use the deviation of their own
    seeds, because these seeds contradict the factor.
    """

    factor: float = math.nan
    freedom: int = 0
    own: frozenset[str] = frozenset()

    @classmethod
    def of(cls, samples: Mapping[str, Sample]) -> "Shared":
        """Pools the deviations of all systems.

        A system whose seeds vary significantly more than the others (F test at 1 %) is left out. A
        system that varies less stays, because two seeds may agree by chance.
        """
        # Half of all deviations estimated from two seeds are off by more than half. All rows
        # together have one degree of freedom for each seed beyond the first of a row.
        pool = {name: s for name, s in samples.items() if s.freedom}
        own = {name for name, s in pool.items() if not s.scale > 0}

        def ratio(names: Iterable[str]) -> tuple[float, int]:
            rows = [pool[name] for name in sorted(names)]  # sums depend on the order
            squares = [(row.squares / row.scale**2, row.freedom) for row in rows]
            total, freedom = map(sum, zip(*squares, strict=True)) if squares else (0.0, 0)
            return total / freedom if freedom else math.nan, freedom

        def p(name: str) -> float:
            (mine, freedom), (others, of) = ratio([name]), ratio(pool.keys() - own - {name})
            # below LEAST, two seeds that agree by chance would exclude a row of five seeds
            if of < LEAST or not others:
                return 1.0
            return float(stats.f.sf(mine / others, freedom, of))

        # one at a time, because the worst system hides others that vary too much
        while left := sorted(pool.keys() - own):
            worst = min(left, key=p)
            if p(worst) >= CONTRADICTED:
                break
            own.add(worst)
        return cls(*ratio(pool.keys() - own), frozenset(own))

    def estimate(self, name: str, sample: Sample) -> Estimate:
        """Returns a system's estimate with the shared deviation, or with its own if in ``own``."""
        own = name in self.own
        scale = sample.scale or math.nan  # zero if the runs diverged
        variance = sample.squares / sample.freedom if own else self.factor * scale**2
        freedom = float(sample.freedom) if own else scaled(self.freedom)
        # with fewer than four degrees of freedom, Student's quantile is above 3
        enough = (sample.freedom if own else self.freedom) >= LEAST
        source = (self, name if own else "")
        return Estimate(sample.values, variance if enough else math.nan, freedom, source)


def scaled(seeds: float) -> float:
    """Returns the degrees of freedom of a variance whose scale is a guess."""
    return 1 / (1 / seeds + 1 / GUESS) if seeds else 0.0


def contrast(terms: Iterable[tuple[float, Estimate]]) -> Contrast:
    """Estimates a weighted sum of systems' means from pairs of a weight and an estimate.

    If the estimates have several sources, the degrees of freedom are Satterthwaite's.
    """
    terms = list(terms)
    if not all(e.values for _, e in terms):
        return Contrast(math.nan, math.nan, math.nan)
    # estimates of one source share an error, so their variances are added first
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

    The two variances are added. If the accuracies of five or more common seeds are correlated (at
    5 %), Student's interval of the pairs is used instead.
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
    """Estimates a weighted sum of named systems' means; a plain difference with :func:`gain`."""
    if sorted(weights.values()) == [-1, 1]:
        before, after = sorted(weights, key=weights.__getitem__)
        return gain(estimates[before], estimates[after])
    return contrast((weight, estimates[name]) for name, weight in weights.items())


def least(found: Sequence[Contrast]) -> tuple[Contrast, Interval]:
    """Returns the least of several contrasts, and the interval of the least true value.

    The lower end is the least lower end at 95 % each (an intersection-union test). The upper end is
    the least upper end at 95 % for all together (Holm's first step). The interval of the least
    contrast alone would be too narrow, because the same runs decide which contrast is the least.
    """
    low = min(contrast.interval()[0] for contrast in found)
    high = min(contrast.interval(len(found))[1] for contrast in found)
    return min(found, key=lambda contrast: contrast.value), (low, high)


def student(values: Sequence[float]) -> Interval:
    """Returns Student's interval of a mean; no interval if values are equal or fewer than three."""
    if len(values) < 3 or np.ptp(values) == 0:
        return NO_INTERVAL
    half = float(stats.t.isf(ALPHA / 2, len(values) - 1) * stats.sem(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def majority(inside: int, runs: int) -> tuple[float, float]:
    """Returns the p values of "at most half of all runs are inside" and of "at least half"."""
    at_most, at_least = (
        stats.binomtest(inside, runs, 0.5, alternative=side).pvalue for side in ("greater", "less")
    )
    return float(at_most), float(at_least)


def seed_floor(truth: np.ndarray) -> float:
    """Returns the deviation between seeds if errors are independent: sqrt(sum p (1 - p)) / n.

    Two runs err almost independently on an image (Jordan, arXiv 2304.01910), so each image adds a
    Bernoulli variance. The floor is too high for underconfident networks. ``truth`` has the
    probability of each image's true class, shape (images,).
    """
    return float(np.sqrt((truth * (1 - truth)).sum()) / len(truth))
