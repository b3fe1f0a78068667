"""Can so many seeds decide it? What recorded deviations say of accuracies and claims beforehand."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from report.analysis.claims import Claim
from report.analysis.content import Content
from report.analysis.quantities import QUANTITIES
from report.analysis.statistics import ALPHA, GUESS, LEAST
from report.analysis.systems import System
from report.analysis.verdicts import Bound

MOST = 100
"""Seeds a row beyond which nobody goes."""


class Prospect(NamedTuple):
    """What it takes to decide a statement if it is as published, or as measured so far.

    ``half`` is the interval's half width that it takes, at most zero if what was measured lies
    outside of the bound; ``seeds`` so many of each row give it, None if ``MOST`` do not, or nothing
    is known.
    """

    name: str
    rungs: tuple[str, ...]
    half: float
    seeds: int | None
    basis: str

    def by(self, seeds: int) -> str:
        """Says whether so many seeds a row can decide it: yes, no, or that it is not known."""
        if self.seeds is None and self.half > 0:
            return "not known" if "not known" in self.basis else f"no: over {MOST}"
        if self.seeds is None:
            return "no: outside so far"
        return "yes" if seeds >= self.seeds else "no"


def prospects(content: Content) -> list[Prospect]:
    """Weighs every published accuracy, then every claim, by what the runs of a content tell.

    Args:
        content: of recorded runs.
    """
    systems = {s.name: s for s in content.systems}
    found = [prospect(content, s) for s in content.systems if not math.isnan(s.published)]
    return [*found, *(_of_claim(claim, content, systems) for claim in content.said.claims)]


def prospect(content: Content, row: System) -> Prospect:
    """Weighs the published accuracy of a row."""
    systems = {s.name: s for s in content.systems}
    return _of_accuracies(row.name, {row.name: 1.0}, row.band, row.published, systems)


def _of_claim(claim: Claim, content: Content, systems: Mapping[str, System]) -> Prospect:
    quantity = QUANTITIES[claim.quantity]
    names = tuple(dict.fromkeys([claim.rung, *([claim.against] if claim.against else [])]))
    published = content.said.published
    if quantity.weights:  # the least of them is claimed about: each must be told
        weighed = [
            _of_accuracies(
                claim.id,
                weights,
                claim.bound,
                sum(w * published.get(name, math.nan) for name, w in weights.items()),
                systems,
            )
            for weights in quantity.weights(claim.rung, claim.against or "", content.said.ladder)
        ]
        return max(weighed, key=lambda p: (p.seeds or math.inf, -p.half))
    # with none outside, so many runs make one half too unlikely
    if quantity.unit == "epoch":
        needed = next(n for n in range(1, MOST) if 0.5**n <= ALPHA)
        return Prospect(claim.id, names, math.nan, needed, "all of them inside, exact binomial")
    judged = next(j for j in content.claims if j.claim is claim)
    values = [value for value in judged.values if not math.isnan(value)]
    half = _half(claim.bound, float(np.mean(values)) if values else math.nan)
    if half <= 0:
        return Prospect(claim.id, names, half, None, "what was measured lies outside the bound")
    if len(values) < 2:
        return Prospect(claim.id, names, half, None, "its deviation is not known")
    error = float(np.std(values, ddof=1))

    def enough(n: int) -> bool:
        return n > 2 and float(stats.t.isf(ALPHA / 2, n - 1)) * error / math.sqrt(n) < half

    return Prospect(claim.id, names, half, _first(enough), f"{len(values)} seeds' own deviation")


def _of_accuracies(
    name: str,
    weights: Mapping[str, float],
    bound: Bound,
    expected: float,
    systems: Mapping[str, System],
) -> Prospect:
    """Weighs a sum of mean accuracies, by the deviation that all rows share."""
    half = _half(bound, expected)
    known = [(w, systems[rung]) for rung, w in weights.items() if rung in systems]
    variance = sum(w**2 * s.estimate.variance for w, s in known if s.runs)
    if not all(s.runs for _, s in known) or math.isnan(variance):
        return Prospect(name, tuple(weights), half, None, "the deviation is not known")

    def enough(n: int) -> bool:
        shared = len(systems) * (n - 1)
        if shared < LEAST:
            return False
        freedom = 1 / (1 / shared + 1 / GUESS)
        return float(stats.t.isf(ALPHA / 2, freedom)) * math.sqrt(variance / n) < half

    basis = f"deviation {100 * math.sqrt(variance):.2f} points"
    return Prospect(name, tuple(weights), half, _first(enough), basis)


def _half(bound: Bound, expected: float) -> float:
    """From the value that is expected to the nearer end of the bound, of its middle if none is."""
    low, high = bound.ends
    if math.isnan(expected):
        return (high - low) / 2 if math.isfinite(high - low) else math.nan
    return min(expected - low, high - expected)


def _first(enough: Callable[[int], bool]) -> int | None:
    return next((n for n in range(1, MOST + 1) if enough(n)), None)
