"""Rungs and baselines, and the steps between them: what was published and what was measured."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from report.analysis import statistics
from report.analysis.runs import Run
from report.analysis.statistics import NO_INTERVAL, Estimate, Interval, Sample, Shared
from report.analysis.verdicts import Bound, Verdict, qualified
from resnet.host.shell import count
from resnet.study import short


@dataclass(frozen=True, eq=False)
class System:
    """A rung or a baseline: what was published and what was measured, NaN where nothing was.

    ``params`` are the first run's, or what the experiment file says where nothing was run.
    ``shared`` is the deviation of all systems. ``assumed`` names what this project had to assume
    of it and what may be why it fails.
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
    shared: Shared = Shared()  # noqa: RUF009 - it is frozen
    assumed: str = ""

    @property
    def slug(self) -> str:
        """The name as part of a file's name or an address; no two names share one."""
        if re.fullmatch(r"\w{1,60}", self.name, re.ASCII):
            return self.name
        safe = re.sub(r"\W", "_", self.name, flags=re.ASCII)[:40]
        return f"{safe}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"

    @property
    def short(self) -> str:
        """:func:`resnet.study.short` of the name."""
        return short(self.name)

    @property
    def heading(self) -> str:
        """``3 + deeper + early stopping``."""
        return f"{self.short} {self.title}"

    def values(self, metric: str) -> list[float]:
        """Returns a metric by seed, of the runs that recorded it."""
        return [value for run in self.runs if not math.isnan(value := run.metric(metric))]

    def mean(self, metric: str) -> float:
        """Returns a metric's mean over seeds."""
        values = self.values(metric)
        return float(np.mean(values)) if values else math.nan

    @cached_property
    def accuracies(self) -> list[float]:
        """Test accuracies by seed."""
        return self.values("test_accuracy")

    @property
    def accuracy(self) -> float:
        """Mean test accuracy over seeds."""
        return self.mean("test_accuracy")

    @property
    def difference(self) -> float:
        """Measured less published accuracy."""
        return self.accuracy - self.published

    @property
    def floor(self) -> float:
        """Deviation over seeds that independent errors alone would give; root mean square."""
        floors = [run.floor for run in self.runs if not math.isnan(run.floor)]
        return float(np.sqrt(np.mean(np.square(floors)))) if floors else math.nan

    @cached_property
    def sample(self) -> Sample:
        """What it tells about the deviation: its accuracies, and jumps and floor of its runs."""
        found = {r.seed: v for r in self.runs if not math.isnan(v := r.metric("test_accuracy"))}
        of_runs = [run.jumps + run.floor**2 for run in self.runs]
        return Sample(found, math.sqrt(np.mean(of_runs)) if of_runs else math.nan)

    @cached_property
    def estimate(self) -> Estimate:
        """Its accuracies, and the variance of one run."""
        return self.shared.estimate(self.name, self.sample)

    @property
    def deviation(self) -> float:
        """Between runs, as it is used: shared, or its own."""
        return math.sqrt(self.estimate.variance)

    @property
    def own_deviation(self) -> float:
        """Between its own seeds; NaN from one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else math.nan

    @cached_property
    def interval(self) -> Interval:
        """95 %, of the mean, which is no more than 1."""
        low, high = statistics.contrast([(1, self.estimate)]).interval()
        return low, min(high, 1.0)

    @property
    def band(self) -> Bound:
        """Where an accuracy counts as reproduced."""
        return Bound(min=self.published - self.tolerance, max=self.published + self.tolerance)

    @property
    def decimals(self) -> int:
        """Decimals of a percentage that tell an accuracy from the end of its tolerance."""
        return 2 if self.tolerance < 0.005 and not math.isnan(self.published) else 1

    @property
    def basis(self) -> str:
        """What the interval is of."""
        if not self.runs:
            return self.waiting
        seeds = count(len(self.runs), "seed")
        return f"{seeds}, own deviation" if self.name in self.shared.own else seeds

    @property
    def verdict(self) -> Verdict:
        """Whether the accuracy lies within the tolerance of the published one."""
        if not self.runs:
            return "not run"
        if math.isnan(self.published):
            return "not comparable"
        return qualified(self.band.judge(*self.interval), self.comparable, self.assumed)


@dataclass(frozen=True, eq=False)
class Step:
    """Two systems; NaN where nothing can be said.

    ``gain`` is of their means, with its 95 % ``interval`` and the two-sided ``p`` that it is zero;
    ``gains`` are those of the seeds in common. Of these and the same test images are ``mcnemar_p``
    (the median over seeds) and, as means, ``agreement`` (share of images put into the same class),
    ``newly_right`` and ``newly_wrong`` (images that only the later or the earlier gets right).
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
        """``2 → 3 + deeper + early stopping``."""
        return f"{self.before.short} → {self.after.heading}"

    @property
    def published(self) -> float:
        """The published gain."""
        return self.after.published - self.before.published


def compare(before: System, after: System) -> Step:
    """Measures what the step from one system to another brought; by image only on the same data."""
    earlier, later = (
        {run.seed: run for run in s.runs if not math.isnan(run.metric("test_accuracy"))}
        for s in (before, after)
    )
    pairs = [(run, later[seed]) for seed, run in earlier.items() if seed in later]
    gains = [b.metric("test_accuracy") - a.metric("test_accuracy") for a, b in pairs]
    used = [*before.runs, *after.runs]
    # McNemar's test is of two networks on one test set; on two sets there is nothing to pair
    same_images = len({run.tags.get("dataset_fingerprint") for run in used}) < 2
    by_image = []
    for a, b in pairs if same_images else ():
        if a.n_test and b.n_test and a.predictions["label"].equals(b.predictions["label"]):
            same = a.predictions["predicted"] == b.predictions["predicted"]
            won, lost = (~a.correct & b.correct).sum(), (a.correct & ~b.correct).sum()
            by_image.append((mcnemar([[0, lost], [won, 0]]).pvalue, same.mean(), won, lost))
    median = np.median(by_image, axis=0)[0] if by_image else math.nan
    means = np.mean(by_image, axis=0)[1:] if by_image else [math.nan] * 3
    contrast = statistics.gain(before.estimate, after.estimate)
    if missing := [f"{s.name}: {s.waiting}" for s in (before, after) if not s.runs]:
        basis = ", ".join(missing)
    elif contrast.paired:
        basis = f"{len(pairs)} seeds, paired: they are correlated"
    else:
        basis = f"{before.basis}; {after.basis}"
    basis += "; other images" * (not same_images)
    numbers = contrast.value, contrast.interval(), contrast.p
    same = {share for _, share, *_ in by_image} == {1}
    if same and len(by_image) == len(before.runs) == len(after.runs):  # they share a training
        numbers, basis = (contrast.value, NO_INTERVAL, math.nan), "the same networks: not by chance"
    return Step(before, after, gains, *numbers, basis, median, *means)


def holm(steps: Sequence[Step]) -> dict[str, float]:
    """Corrects p by Holm, by the later system's name, over the steps that have a p."""
    measured = [step for step in steps if not math.isnan(step.p)]
    if not measured:
        return {}
    p_values = multipletests([step.p for step in measured], method="holm")[1]
    return {step.after.name: p for step, p in zip(measured, p_values, strict=True)}
