"""Compares rungs and baselines with the published accuracies and with each other."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from report.analysis import statistics
from report.analysis.runs import Run
from report.analysis.statistics import NO_INTERVAL, Estimate, Interval, Sample, Shared
from report.analysis.verdicts import Bound, Verdict, qualified
from resnet.host.messages import count
from resnet.study import short


@dataclass(frozen=True, eq=False)
class System:
    """A rung or a baseline with its published accuracy (NaN if there is none) and its runs.

    ``params`` has the settings of the first run, or of the experiment file if nothing was run.
    ``waiting`` says why no run is finished. ``shared`` is the deviation estimated from all systems.
    ``assumed`` names the assumptions that may explain the verdict "fails".
    """

    name: str
    title: str
    published: float
    tolerance: float
    params: dict[str, Any]
    runs: tuple[Run, ...] = ()
    waiting: str = "not run"
    changes: tuple[str, ...] = ()
    comparable: bool = True
    shared: Shared = Shared()  # noqa: RUF009 - Shared is frozen
    assumed: str = ""

    @property
    def slug(self) -> str:
        """The name in a form for file names and addresses."""
        return re.sub(r"\W", "_", self.name)

    @property
    def short(self) -> str:
        return short(self.name)

    @property
    def heading(self) -> str:
        return f"{self.short} {self.title}"

    def values(self, metric: str) -> list[float]:
        return [value for run in self.runs if not math.isnan(value := run.metric(metric))]

    def mean(self, metric: str) -> float:
        values = self.values(metric)
        return float(np.mean(values)) if values else math.nan

    @cached_property
    def accuracies(self) -> list[float]:
        return self.values("test_accuracy")

    @property
    def accuracy(self) -> float:
        return self.mean("test_accuracy")

    @property
    def difference(self) -> float:
        return self.accuracy - self.published

    @property
    def floor(self) -> float:
        floors = [run.floor for run in self.runs if not math.isnan(run.floor)]
        return float(np.sqrt(np.mean(np.square(floors)))) if floors else math.nan

    @cached_property
    def sample(self) -> Sample:
        """The accuracies by seed, and the scale computed from the runs' ``jumps`` and ``floor``."""
        found = {r.seed: v for r in self.runs if not math.isnan(v := r.metric("test_accuracy"))}
        of_runs = [run.jumps + run.floor**2 for run in self.runs]
        return Sample(found, math.sqrt(np.mean(of_runs)) if of_runs else math.nan)

    @cached_property
    def estimate(self) -> Estimate:
        return self.shared.estimate(self.name, self.sample)

    @property
    def deviation(self) -> float:
        """The deviation that the interval uses: shared, or estimated from the row's own seeds."""
        return math.sqrt(self.estimate.variance)

    @property
    def own_deviation(self) -> float:
        """The deviation between the system's own seeds; NaN for a single seed."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else math.nan

    @cached_property
    def interval(self) -> Interval:
        low, high = statistics.contrast([(1, self.estimate)]).interval()
        return low, min(high, 1.0)

    @property
    def band(self) -> Bound:
        return Bound(min=self.published - self.tolerance, max=self.published + self.tolerance)

    @property
    def decimals(self) -> int:
        """The number of decimals in percentages; two if the tolerance is small."""
        return 2 if self.tolerance < 0.005 and not math.isnan(self.published) else 1

    @property
    def basis(self) -> str:
        if not self.runs:
            return self.waiting
        seeds = count(len(self.runs), "seed")
        return f"{seeds}, own deviation" if self.name in self.shared.own else seeds

    @property
    def verdict(self) -> Verdict:
        if not self.runs:
            return "not run"
        if math.isnan(self.published):
            return "not comparable"
        return qualified(self.band.judge(*self.interval), self.comparable, self.assumed)


@dataclass(frozen=True, eq=False)
class Step:
    """A comparison of two systems; unknown numbers are NaN.

    ``gain`` is the difference of the mean accuracies. It has a 95 % ``interval`` and a two-sided p
    value, ``p``. ``gains`` has the difference for each common seed. ``mcnemar_p`` is the median of
    McNemar's p values over these seeds. Three fields are means over these seeds: ``agreement`` (the
    share of images that both systems classify alike), ``newly_right`` (the number of images that
    only ``after`` gets right), and ``newly_wrong`` (the number that only ``before`` gets right).
    """

    before: System
    after: System
    gains: list[float]
    gain: float
    interval: Interval
    p: float
    basis: str
    mcnemar_p: float
    agreement: float
    newly_right: float
    newly_wrong: float

    @property
    def title(self) -> str:
        return f"{self.before.short} → {self.after.heading}"

    @property
    def published(self) -> float:
        return self.after.published - self.before.published


def compare(before: System, after: System) -> Step:
    """Compares two systems' means and, if the test images are the same, their predictions."""
    earlier, later = (
        {run.seed: run for run in s.runs if not math.isnan(run.metric("test_accuracy"))}
        for s in (before, after)
    )
    pairs = [(run, later[seed]) for seed, run in earlier.items() if seed in later]
    gains = [b.metric("test_accuracy") - a.metric("test_accuracy") for a, b in pairs]
    sets = {run.tags.get("dataset_fingerprint") for run in (*before.runs, *after.runs)}
    same_images = len(sets) < 2
    by_image = [found for a, b in pairs if same_images and (found := _by_image(a, b))]
    median = np.median(by_image, axis=0)[0] if by_image else math.nan
    means = np.mean(by_image, axis=0)[1:] if by_image else [math.nan] * 3
    contrast = statistics.gain(before.estimate, after.estimate)
    if missing := [f"{s.name}: {s.waiting}" for s in (before, after) if not s.runs]:
        basis = ", ".join(missing)
    elif contrast.paired:
        basis = f"{len(pairs)} seeds, paired because the accuracies of the two rows are correlated"
    else:
        named = (f"{s.name}: " * (before.name != after.name) + s.basis for s in (before, after))
        basis = "; ".join(named)
    basis += "; different images" * (not same_images)
    numbers = contrast.value, contrast.interval(), contrast.p
    same_networks = {agreement for _, agreement, *_ in by_image} == {1}  # runs of one trajectory
    if same_networks and len(by_image) == len(before.runs) == len(after.runs):
        numbers, basis = (contrast.value, NO_INTERVAL, math.nan), "the networks are the same"
    return Step(before, after, gains, *numbers, basis, median, *means)


def _by_image(a: Run, b: Run) -> tuple[float, float, float, float] | None:
    """Returns McNemar's p, ``agreement``, ``newly_right``, ``newly_wrong``; None if unknown."""
    if not (a.n_test and b.n_test and a.predictions["label"].equals(b.predictions["label"])):
        return None
    agreement = (a.predictions["predicted"] == b.predictions["predicted"]).mean()
    won, lost = int((~a.correct & b.correct).sum()), int((a.correct & ~b.correct).sum())
    p = min(1.0, 2 * float(stats.binom.cdf(min(won, lost), won + lost, 0.5)))
    return p, agreement, won, lost


def holm(steps: Sequence[Step]) -> dict[str, float]:
    """Maps the name of each step's later system to the step's Holm-corrected ``p``; omits NaN."""
    ordered = sorted((step for step in steps if not math.isnan(step.p)), key=lambda step: step.p)
    corrected, highest = {}, 0.0
    for i, step in enumerate(ordered):
        highest = max(highest, step.p * (len(ordered) - i))
        corrected[step.after.name] = min(highest, 1.0)
    return corrected
