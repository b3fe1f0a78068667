"""The study's statements as data, and their judgement by what was measured.

``experiments/claims.yaml`` names a quantity and a bound a claim; the quantities are here.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from report import statistics
from report.runs import Run
from report.statistics import NO_INTERVAL, Interval
from resnet import UserError, config

Verdict = Literal["holds", "fails", "undecided", "not run", "not comparable"]
Unit = Literal["accuracy", "points", "epoch", "ratio"]
Runs = dict[str, Run]  # by rung, of one seed
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]

GAP_EPOCHS = 3
"""A gap of curves is averaged over that many last epochs: validation accuracy jumps about."""
SLOPE_EPOCHS = 10
"""Epochs before and after a drop of the learning rate over which slopes are fitted."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bound(_Strict):
    """Where a quantity must lie, ends included."""

    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _has_room(self) -> "Bound":
        if self.min is None and self.max is None:
            raise ValueError("a bound needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        return self

    def judge(self, low: float, high: float) -> Verdict:
        """Holds if all of the interval lies inside, fails if none does; without one undecided."""
        bottom = -math.inf if self.min is None else self.min
        top = math.inf if self.max is None else self.max
        if bottom <= low and high <= top:
            return "holds"
        return "fails" if high < bottom or low > top else "undecided"


class Claim(_Strict):
    """One statement of the study; ``against`` is the system that ``rung`` is compared with."""

    id: Annotated[str, Field(pattern=r"^[\w-]+$")]
    rung: Text
    against: str | None = None
    text: Text
    quantity: Text
    bound: Bound

    @model_validator(mode="after")
    def _quantity_is_known(self) -> "Claim":
        if self.quantity not in QUANTITIES:
            raise ValueError(f"there is no quantity {self.quantity!r}: {', '.join(QUANTITIES)}")
        if QUANTITIES[self.quantity].compares != (self.against is not None):
            needs = "needs" if self.against is None else "takes no"
            raise ValueError(f"the quantity {self.quantity} {needs} 'against'")
        return self


class Contradiction(_Strict):
    """What the study leaves open or says in two ways, and how this project settled it."""

    topic: Text
    study: Text
    settled: Text


class Study(_Strict):
    """``experiments/claims.yaml``."""

    published: dict[str, Annotated[float, Field(gt=0, lt=1)]]
    tolerance: Annotated[float, Field(gt=0, lt=1)]
    claims: list[Claim]
    contradictions: list[Contradiction]

    @model_validator(mode="after")
    def _names_agree(self) -> "Study":
        known = {*self.published, *config.find()}
        for claim in self.claims:
            for name in (claim.rung, claim.against):
                if name is not None and name not in known:
                    raise ValueError(f"claim {claim.id}: there is no experiment {name!r}")
            if QUANTITIES[claim.quantity].whole_ladder and claim.rung not in self.ladder[1:]:
                raise ValueError(f"claim {claim.id}: {claim.rung!r} is no step of the ladder")
        repeated = [i for i, n in Counter(claim.id for claim in self.claims).items() if n > 1]
        if repeated:
            raise ValueError(f"the claim {repeated[0]!r} stands there twice")
        return self

    @property
    def ladder(self) -> list[str]:
        """The numbered rungs in order, without what they are compared with."""
        rungs = [name for name in self.published if config.rung_number(name) is not None]
        return sorted(rungs, key=config.rung_number)


def load_study(path: Path = config.EXPERIMENTS / "claims.yaml") -> Study:
    """Reads the study's statements.

    Raises:
        UserError: the file is missing or malformed.
    """
    try:
        return Study.model_validate(config.read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise UserError(f"{path}: {place}{': ' if place else ''}{message}") from None


@dataclass(frozen=True)
class Quantity:
    """Something a claim can be about.

    ``measure`` gives its value for one seed's runs: NaN if it cannot be had, infinity for
    "never". ``one_run`` gives what a single run can say about its uncertainty, if anything.
    """

    unit: Unit
    meaning: str
    measure: Callable[[Runs, Claim, list[str]], float]
    one_run: Callable[[Runs, Claim, list[str]], tuple[Interval, str] | None] = (
        lambda runs, claim, ladder: None
    )
    compares: bool = False
    whole_ladder: bool = False


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict with what it rests on; NaN where nothing was measured."""

    claim: Claim
    verdict: Verdict
    evidence: str
    runs: tuple[Run, ...] = ()
    value: float = math.nan
    interval: Interval = NO_INTERVAL

    @property
    def unit(self) -> Unit:
        """The measured quantity's unit."""
        return QUANTITIES[self.claim.quantity].unit


@dataclass(frozen=True)
class Evidence:
    """What claims are judged by.

    Attributes:
        runs: one a (rung, seed).
        ladder: the names of the numbered rungs in order.
        waiting: what became of rungs without a finished run, such as "still going".
        doubtful: see :class:`report.selection.Selection`.
        comparable: whether the runs are of what the study is about.
    """

    runs: tuple[Run, ...]
    ladder: list[str]
    waiting: dict[str, str] = field(default_factory=dict)
    doubtful: frozenset[str] = frozenset()
    comparable: bool = True

    def by_seed(self, rungs: list[str]) -> dict[int, Runs]:
        """The runs of the seeds that all these rungs have in common, in order."""
        found: dict[int, Runs] = {}
        for run in self.runs:
            found.setdefault(run.seed, {})[run.rung] = run
        return {
            seed: {rung: found[seed][rung] for rung in rungs}
            for seed in sorted(found)
            if set(rungs) <= set(found[seed])
        }

    def doubts(self, rungs: list[str]) -> bool:
        """Whether a run of one of these rungs may be missing here."""
        return bool(self.doubtful & {"", *rungs})


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Judges one claim, by an interval or not at all.

    The interval is Student's over seeds; with one seed it is what the images seen allow, if the
    quantity is a share of images. A run whose evidence is incomplete is not left out, because the
    others alone may look firmer than all of them: it leaves the claim undecided.

    Args:
        claim: what is said.
        evidence: what was measured.

    Returns:
        The verdict and what it rests on.
    """
    quantity = QUANTITIES[claim.quantity]
    rungs = list(dict.fromkeys([claim.rung, *([claim.against] if claim.against else [])]))
    if quantity.whole_ladder:
        rungs = list(dict.fromkeys([*rungs, *evidence.ladder]))
    there = {run.rung for run in evidence.runs}
    if missing := [rung for rung in rungs if rung not in there]:
        told = ", ".join(f"{rung}: {evidence.waiting.get(rung, 'not run')}" for rung in missing)
        return Judgement(claim, "not run", told)
    by_seed = evidence.by_seed(rungs)
    used = tuple(run for runs in by_seed.values() for run in runs.values())
    measured = {s: quantity.measure(runs, claim, evidence.ladder) for s, runs in by_seed.items()}
    gone = [str(seed) for seed, value in measured.items() if math.isnan(value)]
    values = list(measured.values())
    value, interval = math.nan, NO_INTERVAL
    if not by_seed:
        told = f"no seed in common: {', '.join(rungs)}"
    elif gone:
        told = f"cannot be measured from what seed {', '.join(gone)} left"
    elif len(values) == 1:
        value, seed = values[0], next(iter(by_seed))
        found = quantity.one_run(by_seed[seed], claim, evidence.ladder)
        interval, basis = found or (NO_INTERVAL, "no interval, which takes more seeds")
        told = f"one run (seed {seed}): {basis}"
    elif len(set(values)) == 1:
        value, told = values[0], f"{len(values)} seeds: all the same"
        interval = value, value
    elif all(map(math.isfinite, values)):
        value, told = float(np.mean(values)), f"{len(values)} seeds: t interval"
        interval = statistics.t_interval(values)
    else:  # it never happened in some run, so that there is no mean
        told = f"{len(values)} seeds: never in {sum(map(math.isinf, values))} of them, no mean"
    verdict = claim.bound.judge(*interval)
    if evidence.doubts(rungs):
        verdict, told = "undecided", f"{told}; a run may be missing here"
    if not evidence.comparable:
        verdict = "not comparable"
    return Judgement(claim, verdict, told, used, value, interval)


def _of_run(measure: Callable[[Run], float]):
    return lambda runs, claim, ladder: measure(runs[claim.rung])


def _last(key: str) -> Callable[[Run], float]:
    return lambda run: float(run.curve(key).tail(1).mean())


def _most(key: str) -> Callable[[Run], float]:
    return lambda run: float(run.curve(key).max())


def _metric(key: str) -> Callable[[Run], float]:
    return lambda run: run.metric(key)


def gap(run: Run) -> float:
    """Training less validation accuracy, averaged over the last ``GAP_EPOCHS`` epochs."""
    return float((run.curve("accuracy") - run.curve("val_accuracy")).tail(GAP_EPOCHS).mean())


def drops(rate: pd.Series) -> list[int]:
    """The first epoch at each lower learning rate."""
    # single-precision rates: a change is at least a factor, not the last bit
    return [int(epoch) for epoch in rate.index[rate < rate.shift() * 0.999]]


def _first_drop(run: Run) -> float:
    rate = run.curve("learning_rate")
    return math.nan if rate.empty else next(iter(drops(rate)), math.inf)


def _gap_ratio(runs: Runs, claim: Claim, ladder: list[str]) -> float:
    before = gap(runs[claim.against])
    return gap(runs[claim.rung]) / before if before > 0 else math.nan


def _slope_ratio(run: Run) -> float:
    drop = _first_drop(run)
    if not math.isfinite(drop):
        return math.nan
    curve = (run.curve("accuracy") + run.curve("val_accuracy")) / 2
    before = curve.loc[drop - SLOPE_EPOCHS : drop - 1]
    after = curve.loc[drop + 1 : drop + SLOPE_EPOCHS]  # the jump at the drop is no slope
    if curve.isna().any() or min(len(before), len(after)) < 3:
        return math.nan
    slopes = [float(np.polyfit(part.index, part, 1)[0]) for part in (before, after)]
    return slopes[1] / slopes[0] if slopes[0] > 0 else math.nan


Weights = Callable[[Runs, Claim, list[str]], dict[str, float]]


def _own(runs: Runs, claim: Claim, ladder: list[str]) -> dict[str, float]:
    return {claim.rung: 1.0}


def _gain(runs: Runs, claim: Claim, ladder: list[str]) -> dict[str, float]:
    return {claim.rung: 1.0, claim.against: -1.0}


def _lead(runs: Runs, claim: Claim, ladder: list[str]) -> dict[str, float]:
    """The rung's own step less the largest of the others."""
    accuracy = {rung: runs[rung].metric("test_accuracy") for rung in ladder}
    gains = {after: accuracy[after] - accuracy[before] for before, after in pairwise(ladder)}
    if any(map(math.isnan, gains.values())):
        return dict.fromkeys(ladder, math.nan)
    rival = max((rung for rung in gains if rung != claim.rung), key=gains.get)
    weights: Counter = Counter()
    for rung, sign in ((claim.rung, 1.0), (rival, -1.0)):
        weights[rung] += sign
        weights[ladder[ladder.index(rung) - 1]] -= sign
    return {rung: weight for rung, weight in weights.items() if weight}


def images_interval(runs: Runs, weights: dict[str, float]) -> tuple[Interval, str] | None:
    """What the test set's size leaves open in a weighted sum of one run's accuracies each.

    Args:
        runs: by rung.
        weights: by rung; a single one is that rung's accuracy.

    Returns:
        The 95 % interval and how it was had; None without predictions of the same images.
    """
    chosen = [runs[rung] for rung in weights]
    if any(run.predictions is None for run in chosen):
        return None
    n = chosen[0].n_test
    if len(chosen) == 1:
        return statistics.wilson(int(chosen[0].correct.sum()), n), f"binomial, {n:,} test images"
    if not all(run.predictions["label"].equals(chosen[0].predictions["label"]) for run in chosen):
        return None
    scores = sum(weight * runs[rung].correct for rung, weight in weights.items())
    return statistics.paired_interval(scores), f"paired by {n:,} test images"


def _tested(weights: Weights) -> dict[str, Any]:
    return {
        "measure": lambda runs, claim, ladder: sum(
            weight * runs[rung].metric("test_accuracy")
            for rung, weight in weights(runs, claim, ladder).items()
        ),
        "one_run": lambda runs, claim, ladder: images_interval(runs, weights(runs, claim, ladder)),
    }


def _validation_images(runs: Runs, claim: Claim, ladder: list[str]):
    run = runs[claim.rung]
    n = run.validation_images
    if not n:
        return None
    correct = round(_last("val_accuracy")(run) * n)
    return statistics.wilson(correct, n), f"binomial, {n:,} validation images"


QUANTITIES: dict[str, Quantity] = {
    "test_accuracy": Quantity("accuracy", "test accuracy", **_tested(_own)),
    "test_gain": Quantity(
        "points",
        "test accuracy less that of the system named by 'against'",
        **_tested(_gain),
        compares=True,
    ),
    "gain_lead": Quantity(
        "points",
        "the rung's gain in test accuracy less the largest gain of another step",
        **_tested(_lead),
        whole_ladder=True,
    ),
    "final_train_accuracy": Quantity(
        "accuracy", "training accuracy of the last epoch", _of_run(_last("accuracy"))
    ),
    "max_train_accuracy": Quantity(
        "accuracy",
        "largest training accuracy of any epoch",
        _of_run(_most("accuracy")),
    ),
    "final_val_accuracy": Quantity(
        "accuracy",
        "validation accuracy of the last epoch",
        _of_run(_last("val_accuracy")),
        _validation_images,
    ),
    "max_val_accuracy": Quantity(
        "accuracy",
        "largest validation accuracy of any epoch",
        _of_run(_most("val_accuracy")),
    ),
    "final_gap": Quantity(
        "points",
        f"training less validation accuracy, mean of the last {GAP_EPOCHS} epochs",
        _of_run(gap),
    ),
    "gap_ratio": Quantity(
        "ratio",
        "the final gap as a share of that of the system named by 'against', if that one has any",
        _gap_ratio,
        compares=True,
    ),
    "stopped_epoch": Quantity(
        "epoch",
        "the epoch after which early stopping ended the run, 0 if it did not",
        _of_run(_metric("stopped_epoch")),
    ),
    "epochs_run": Quantity("epoch", "epochs trained", _of_run(_metric("epochs_run"))),
    "first_drop_epoch": Quantity(
        "epoch", "the first epoch at a lower learning rate", _of_run(_first_drop)
    ),
    "slope_ratio_after_drop": Quantity(
        "ratio",
        f"slope of the accuracy curves (mean of training and validation) in the {SLOPE_EPOCHS} "
        "epochs after the first learning-rate drop, as a share of the slope before it; takes a "
        "drop with three epochs on either side and a rise before it",
        _of_run(_slope_ratio),
    ),
}
