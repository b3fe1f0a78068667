"""One deviation between seeds, shared by all systems; intervals, tests and power from it.

Accuracies are fractions of 1; every interval is two-sided at 95 % and returned as (low, high).
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

ALPHA = 0.05
LEAST = 4
"""Degrees of freedom of a deviation below which nothing is decided by it."""
GUESS = 6
"""Degrees of freedom that a system's scale is worth as a guess: 1 / (2 * 0.29 ** 2), 29 % off.

With them every case of docs/evidence.md is covered in 93.9 % or more; with eight the worst in 92.8,
as if scales were known in 89.5 (``python -m docs.coverage --worth``).
"""
CONTRADICTED = 0.01
"""P of the F test below which a system's own seeds vary more than the shared deviation allows."""

Interval = tuple[float, float]
NO_INTERVAL = (math.nan, math.nan)


class Sample(NamedTuple):
    """One system: accuracies by seed, and how far its own epochs say that seeds lie apart."""

    values: Mapping[int, float]
    scale: float

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the deviation between its seeds."""
        return max(len(self.values) - 1, 0)

    @property
    def squares(self) -> float:
        """Sum of squared distances from their mean."""
        return float(np.var([*self.values.values()]) * len(self.values)) if self.values else 0.0


class Estimate(NamedTuple):
    """What is known of a system: its runs, the variance of one, and what that rests on.

    ``freedom`` are the variance's degrees of freedom; estimates of one ``source`` share theirs.
    """

    values: Mapping[int, float]
    variance: float
    freedom: float
    source: Hashable


class Contrast(NamedTuple):
    """A weighted sum of means, with its standard error; NaN where nothing is known of one."""

    value: float
    error: float
    freedom: float
    paired: bool = False

    def interval(self, tests: int = 1) -> Interval:
        """Returns the interval at 95 %, or of so many together (Bonferroni)."""
        if not self.error > 0:
            return NO_INTERVAL
        half = float(stats.t.isf(ALPHA / 2 / tests, self.freedom)) * self.error
        return self.value - half, self.value + half

    @property
    def above(self) -> float:
        """Probability, as far as is known, that it is above zero."""
        return float(stats.t.cdf(self.value / self.error, self.freedom)) if self.error else math.nan

    @property
    def p(self) -> float:
        """Two-sided, that it is zero."""
        return 2 * min(self.above, 1 - self.above)


@dataclass(frozen=True)
class Shared:
    """The deviation that all systems share, each in its own scale: a weighted analysis of variance.

    A run's variance is ``factor`` times its system's squared scale. ``freedom`` are its degrees of
    freedom; ``own`` are the systems whose seeds contradict it and which go by their own instead.
    """

    factor: float = math.nan
    freedom: int = 0
    own: frozenset[str] = frozenset()

    @classmethod
    def of(cls, samples: Mapping[str, Sample]) -> "Shared":
        """Pools the deviation of all systems by name.

        A system whose seeds vary more than those of the others allow (F test at 1 %) is left out,
        the worst first. One that varies less is not: two seeds may agree by chance.
        """
        # One row's two or three seeds tell its deviation badly: of two, half of all estimates are
        # off by more than half. All rows together have as many degrees of freedom as there are
        # seeds beyond the first of each.
        pool = {name: s for name, s in samples.items() if s.freedom}
        own = {name for name, s in pool.items() if not s.scale > 0}

        def ratio(names: Iterable[str]) -> tuple[float, int]:
            squares = [(pool[n].squares / pool[n].scale ** 2, pool[n].freedom) for n in names]
            total, freedom = map(sum, zip(*squares, strict=True)) if squares else (0.0, 0)
            return total / freedom if freedom else math.nan, freedom

        def p(name: str) -> float:
            (mine, freedom), (others, of) = ratio([name]), ratio(pool.keys() - own - {name})
            # with less, a row of two equal seeds made one of five contradict it
            if of < LEAST or not others:
                return 1.0
            return float(stats.f.sf(mine / others, freedom, of))

        # one at a time, since a run that diverged makes the pool it is in look wide to everyone
        while left := sorted(pool.keys() - own):
            worst = min(left, key=p)
            if p(worst) >= CONTRADICTED:
                break
            own.add(worst)
        return cls(*ratio(pool.keys() - own), frozenset(own))

    def estimate(self, name: str, sample: Sample) -> Estimate:
        """Returns what is known of a system by it, or by its own seeds if they contradict it."""
        if name in self.own:
            known, freedom = sample.squares / sample.freedom, float(sample.freedom)
        else:
            scale = sample.scale or math.nan  # none at all: it diverged
            known, freedom = self.factor * scale**2, _freedom(self.freedom)
        # below four Student's quantile is 3.2 and more, and says little but how few there are
        enough = (sample.freedom if name in self.own else self.freedom) >= LEAST
        source = (self, name if name in self.own else "")
        return Estimate(sample.values, known if enough else math.nan, freedom, source)


def _freedom(seeds: float) -> float:
    """Degrees of freedom of a variance of so many, in a scale that is itself a guess."""
    return 1 / (1 / seeds + 1 / GUESS) if seeds else 0.0


def contrast(parts: Iterable[tuple[float, Estimate]]) -> Contrast:
    """Estimates a weighted sum of systems' means.

    Args:
        parts: weights and systems.

    Returns:
        It, with Satterthwaite's degrees of freedom where deviations of several sources meet.
    """
    parts = list(parts)
    if not all(e.values for _, e in parts):
        return Contrast(math.nan, math.nan, math.nan)
    # Estimates of one source are wrong together: their variances are added before their degrees of
    # freedom are weighed (Satterthwaite), not each by itself.
    variances: dict[Hashable, float] = {}
    for weight, e in parts:
        one = weight**2 * e.variance / len(e.values)
        variances[e.source] = variances.get(e.source, 0.0) + one
    freedom = {e.source: e.freedom for _, e in parts}
    total = sum(variances.values())
    joint = sum(v**2 / max(freedom[source], 1e-9) for source, v in variances.items())
    value = sum(weight * float(np.mean([*e.values.values()])) for weight, e in parts)
    return Contrast(value, math.sqrt(total), total**2 / joint if joint else math.nan)


def gain(before: Estimate, after: Estimate) -> Contrast:
    """Estimates the difference of two systems' means.

    The two variances are added, unless pairs of one seed are measurably correlated (over five or
    more, at 5 %): then it is Student's over the pairs.
    """
    whole = contrast([(1, after), (-1, before)])
    seeds = sorted(before.values.keys() & after.values.keys())
    a, b = ([e.values[seed] for seed in seeds] for e in (before, after))
    # One seed gives two rungs the same initial weights and order of images. Whether that correlates
    # their accuracies has to be seen first: pairing must earn the degrees of freedom that it costs.
    if len(seeds) <= LEAST or math.isnan(whole.error) or not (np.ptp(a) and np.ptp(b)):
        return whole
    if stats.pearsonr(a, b, alternative="greater").pvalue >= ALPHA:
        return whole
    gains = np.subtract(b, a)
    error = float(np.std(gains, ddof=1)) / math.sqrt(len(seeds))
    return Contrast(float(np.mean(gains)), error, len(seeds) - 1, paired=True)


def weighted(weights: Mapping[str, float], estimates: Mapping[str, Estimate]) -> Contrast:
    """Estimates a weighted sum of named systems' means, two as :func:`gain` does."""
    if sorted(weights.values()) == [-1, 1]:
        before, after = sorted(weights, key=weights.__getitem__)
        return gain(estimates[before], estimates[after])
    return contrast((weight, estimates[name]) for name, weight in weights.items())


def least(found: Sequence[Contrast]) -> tuple[Contrast, Interval]:
    """Estimates the least of some contrasts, with the interval of the true least.

    All lie above a bound if each does, at 95 % each: an intersection-union test. One lies below it
    if one does, at 95 % of all together, which is Holm's first step. The interval of the smallest
    that was measured would say too little: which is smallest was chosen by the same runs.
    """
    # what the least exceeds, each must exceed: no correction for their number, as each must pass
    low = min(contrast.interval()[0] for contrast in found)
    high = min(contrast.interval(len(found))[1] for contrast in found)
    return min(found, key=lambda contrast: contrast.value), (low, high)


def student(values: Sequence[float]) -> tuple[Interval, float]:
    """Student's interval of a mean and the p that it is zero.

    None below three seeds, and none if all are the same: those are copies, or nothing in them is
    left to chance.
    """
    # of two values Student's quantile is 12.7: an interval that says nothing but that there are two
    if len(values) < 3 or np.ptp(values) == 0:
        return NO_INTERVAL, math.nan
    described = DescrStatsW(values)
    low, high = described.tconfint_mean(ALPHA)
    return (float(low), float(high)), float(described.ttest_mean(0)[1])


def majority(inside: int, runs: int) -> tuple[float, float]:
    """Tests that at most, and that at least, half of all runs lie inside (P, exact binomial).

    Args:
        inside: how many of them do.
        runs: how many there are.
    """
    at_most, at_least = (
        stats.binomtest(inside, runs, 0.5, alternative=side).pvalue for side in ("greater", "less")
    )
    return float(at_most), float(at_least)


def seed_floor(truth: np.ndarray) -> float:
    """Estimates what independent errors alone give over seeds: sqrt(sum p (1 - p)) / n.

    Two runs' errors on one test set are near independent given the image (Jordan, arXiv
    2304.01910), so that each image adds its own Bernoulli variance, if a network is as sure as
    trainings are often right. Of one that is less sure than that it overstates.

    Args:
        truth: probability given to each image's true class, shape (images,).
    """
    return float(np.sqrt((truth * (1 - truth)).sum()) / len(truth))


def place(value: float, interval: Interval) -> str:
    """Says whether a value lies ``below``, ``inside`` or ``above`` an interval; "" without one."""
    low, high = interval
    if math.isnan(low) or math.isnan(value):
        return ""
    return "below" if value < low else "above" if value > high else "inside"
