"""Estimates from finished runs how many seeds an accuracy or a claim needs for a verdict."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from report.analysis import statistics
from report.analysis.claims import Claim
from report.analysis.content import Content
from report.analysis.quantities import QUANTITIES
from report.analysis.statistics import ALPHA, LEAST
from report.analysis.systems import System
from report.analysis.verdicts import Bound

MOST = 100
"""The largest number of seeds per row that is tried."""


class Prospect(NamedTuple):
    """The number of seeds per row that a verdict needs, if the published value is true.

    An interval gives a verdict if its half width is below ``half``. For a value outside the bound,
    ``half`` is zero or less. ``seeds`` is None if ``MOST`` seeds are too few or the deviation is
    unknown.
    """

    name: str
    rungs: tuple[str, ...]
    half: float
    seeds: int | None
    basis: str


def prospects(content: Content) -> list[Prospect]:
    """Returns the prospects of all published accuracies, then of all claims."""
    rows = [prospect(content, s) for s in content.systems if not math.isnan(s.published)]
    return rows + [_of_claim(claim, content) for claim in content.statements.claims]


def prospect(content: Content, row: System) -> Prospect:
    """Returns the prospect of a row's published accuracy."""
    return _of_accuracies(row.name, {row.name: 1.0}, row.band, row.published, content)


def _of_claim(claim: Claim, content: Content) -> Prospect:
    quantity, published = QUANTITIES[claim.quantity], content.statements.published
    if quantity.weights:  # the claim needs enough seeds to decide every sum
        sums = quantity.weights(claim.rung, claim.against or "", content.statements.ladder)
        weighed = [
            _of_accuracies(
                claim.id,
                weights,
                claim.bound,
                sum(w * published.get(name, math.nan) for name, w in weights.items()),
                content,
            )
            for weights in sums
        ]
        return max(weighed, key=lambda p: (p.seeds or math.inf, -p.half))
    names = tuple(dict.fromkeys(filter(None, (claim.rung, claim.against))))
    if quantity.unit == "epoch":
        least = next(n for n in range(1, MOST) if 0.5**n <= ALPHA)
        return Prospect(claim.id, names, math.nan, least, "binomial test, if all runs agree")
    judged = next(j for j in content.claims if j.claim is claim)
    values = [value for value in judged.values if not math.isnan(value)]
    half = _half(claim.bound, float(np.mean(values)) if values else math.nan)
    if half <= 0:
        return Prospect(claim.id, names, half, None, "the measured value is outside the bound")
    if len(values) < 2:
        return Prospect(claim.id, names, half, None, "the deviation is not known")
    error = float(np.std(values, ddof=1))
    needed = _fewest(half, error, lambda n: n - 1 if n > 2 else 0)
    return Prospect(claim.id, names, half, needed, f"deviation of {len(values)} seeds")


def _of_accuracies(
    name: str, weights: Mapping[str, float], bound: Bound, expected: float, content: Content
) -> Prospect:
    systems, half = {s.name: s for s in content.systems}, _half(bound, expected)
    known = [(w, systems[rung]) for rung, w in weights.items() if rung in systems]
    variance = sum(w**2 * s.estimate.variance for w, s in known if s.runs)
    if not all(s.runs for _, s in known) or math.isnan(variance):
        return Prospect(name, tuple(weights), half, None, "the deviation is not known")

    def freedom(n: int) -> float:
        shared = len(systems) * (n - 1)
        return statistics.scaled(shared) if shared >= LEAST else 0

    needed = _fewest(half, math.sqrt(variance), freedom)
    basis = f"deviation {100 * math.sqrt(variance):.2f} points"
    return Prospect(name, tuple(weights), half, needed, basis)


def _half(bound: Bound, expected: float) -> float:
    """Returns a value's distance from the bound's nearer end; for NaN, half the bound's width."""
    low, high = bound.ends
    if math.isnan(expected):
        return (high - low) / 2 if math.isfinite(high - low) else math.nan
    return min(expected - low, high - expected)


def _fewest(half: float, deviation: float, freedom: Callable[[int], float]) -> int | None:
    """Returns the fewest seeds whose t interval has a half width below ``half``.

    ``freedom`` returns the degrees of freedom of a number of seeds, or 0 if the seeds are too few.
    """
    for n in range(1, MOST + 1):
        if (of := freedom(n)) and stats.t.isf(ALPHA / 2, of) * deviation / math.sqrt(n) < half:
            return n
    return None
