"""The study's statements as data, and their judgement by what was measured.

``experiments/claims.yaml`` names a quantity and a bound a claim; the quantities are here.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from report import statistics
from report.runs import Run
from report.statistics import Interval
from resnet import UserError, config

Verdict = Literal["holds", "fails", "undecided"]
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
        """Holds if all of the interval lies inside, fails if none of it does."""
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
        for claim in self.claims:
            for name in (claim.rung, claim.against):
                if name is not None and name not in self.published:
                    raise ValueError(f"claim {claim.id}: {name!r} has no published accuracy")
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
    value: float
    low: float
    high: float
    evidence: str
    runs: tuple[Run, ...]

    @property
    def unit(self) -> Unit:
        """The measured quantity's unit."""
        return QUANTITIES[self.claim.quantity].unit


class Evidence:
    """Runs by rung and seed."""

    def __init__(self, runs: list[Run], ladder: list[str]):
        """Takes one run a (rung, seed), and the names of the numbered rungs in order."""
        self.ladder = ladder
        self.runs: dict[str, dict[int, Run]] = {}
        for run in runs:
            self.runs.setdefault(run.rung, {})[run.seed] = run

    def by_seed(self, rungs: list[str]) -> dict[int, Runs]:
        """The runs of the seeds that all these rungs have in common, in order."""
        seeds = set.intersection(*(set(self.runs.get(rung, ())) for rung in rungs))
        return {seed: {rung: self.runs[rung][seed] for rung in rungs} for seed in sorted(seeds)}


def judge(claim: Claim, evidence: Evidence, waiting: dict[str, str] | None = None) -> Judgement:
    """Judges one claim.

    By Student's interval over seeds if there are several; with one seed by the interval that
    the images seen allow, if the quantity is a share of images, else by the bare value.

    Args:
        claim: what is said.
        evidence: what was measured.
        waiting: what became of rungs without a finished run, such as "still going".

    Returns:
        The verdict, "undecided" if there is too little evidence.
    """
    quantity = QUANTITIES[claim.quantity]
    rungs = list(dict.fromkeys([claim.rung, *([claim.against] if claim.against else [])]))
    if quantity.whole_ladder:
        rungs = list(dict.fromkeys([*rungs, *evidence.ladder]))
    missing = [rung for rung in rungs if rung not in evidence.runs]

    def undecided(why: str, runs: tuple[Run, ...] = ()) -> Judgement:
        return Judgement(claim, "undecided", math.nan, math.nan, math.nan, why, runs)

    if missing:
        return undecided(
            ", ".join(f"{rung}: {(waiting or {}).get(rung, 'not run')}" for rung in missing)
        )
    by_seed = evidence.by_seed(rungs)
    if not by_seed:
        return undecided(f"no seed in common: {', '.join(rungs)}")
    measured = {s: quantity.measure(runs, claim, evidence.ladder) for s, runs in by_seed.items()}
    values = {seed: value for seed, value in measured.items() if not math.isnan(value)}
    used = tuple(run for seed in values or by_seed for run in by_seed[seed].values())
    if not values:
        return undecided("cannot be measured from what was recorded", used)

    numbers = list(values.values())
    mean = float(np.mean(numbers))
    if len(numbers) == 1:
        seed = next(iter(values))
        interval = quantity.one_run(by_seed[seed], claim, evidence.ladder)
        (low, high), basis = interval or ((mean, mean), "the value itself, no interval")
        verdict, text = claim.bound.judge(low, high), f"one run (seed {seed}): {basis}"
    elif all(map(math.isfinite, numbers)):
        low, high = statistics.t_interval(numbers)
        verdict, text = claim.bound.judge(low, high), f"{len(numbers)} seeds: t interval"
    else:  # it never happened in some run, so that there is no mean
        verdicts = {claim.bound.judge(value, value) for value in numbers}
        verdict = verdicts.pop() if len(verdicts) == 1 else "undecided"
        low = high = mean
        never = sum(map(math.isinf, numbers))
        text = f"{len(numbers)} seeds: never in {never} of them"
    if len(values) < len(measured):
        text += f"; {len(measured) - len(values)} seed(s) could not be measured"
    return Judgement(claim, verdict, mean, low, high, text, used)


def _of_run(measure: Callable[[Run], float]):
    return lambda runs, claim, ladder: measure(runs[claim.rung])


def _last(key: str) -> Callable[[Run], float]:
    return lambda run: _value(run.history[key].dropna().iloc[-1:])


def _value(series: Any) -> float:
    return float(series.iloc[0]) if len(series) else math.nan


def _metric(key: str) -> Callable[[Run], float]:
    return lambda run: run.metrics.get(key, math.nan)


def gap(run: Run) -> float:
    """Training less validation accuracy, averaged over the last ``GAP_EPOCHS`` epochs."""
    return float((run.history["accuracy"] - run.history["val_accuracy"]).tail(GAP_EPOCHS).mean())


def drops(run: Run) -> list[int]:
    """The first epoch at each lower learning rate."""
    rate = run.history["learning_rate"]
    # single-precision rates: a change is at least a factor, not the last bit
    return [int(epoch) for epoch in rate.index[rate < rate.shift() * 0.999]]


def _first_drop(run: Run) -> float:
    if run.history["learning_rate"].dropna().empty:
        return math.nan
    return drops(run)[0] if drops(run) else math.inf


def _gap_ratio(runs: Runs, claim: Claim, ladder: list[str]) -> float:
    before = gap(runs[claim.against])
    return gap(runs[claim.rung]) / before if before > 0 else math.nan


def _slope_ratio(run: Run) -> float:
    drop = _first_drop(run)
    if not math.isfinite(drop):
        return math.nan
    curve = run.history[["accuracy", "val_accuracy"]].mean(axis=1, skipna=False).dropna()
    before = curve.loc[drop - SLOPE_EPOCHS : drop - 1]
    after = curve.loc[drop + 1 : drop + SLOPE_EPOCHS]  # the jump at the drop is no slope
    if min(len(before), len(after)) < 3:
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
    gains = {
        after: runs[after].metrics.get("test_accuracy", math.nan)
        - runs[before].metrics.get("test_accuracy", math.nan)
        for before, after in pairwise(ladder)
    }
    rival = max((rung for rung in gains if rung != claim.rung), key=gains.get)
    weights: Counter = Counter()
    for rung, sign in ((claim.rung, 1.0), (rival, -1.0)):
        weights[rung] += sign
        weights[ladder[ladder.index(rung) - 1]] -= sign
    return {rung: weight for rung, weight in weights.items() if weight}


def combination(runs: Runs, weights: dict[str, float]) -> float:
    """A weighted sum of test accuracies."""
    return sum(w * runs[r].metrics.get("test_accuracy", math.nan) for r, w in weights.items())


def images_interval(runs: Runs, weights: dict[str, float]) -> tuple[Interval, str] | None:
    """What the test set's size leaves open in a weighted sum of one run's accuracies each.

    Args:
        runs: by rung.
        weights: by rung; a single one is that rung's accuracy.

    Returns:
        The 95 % interval and how it was had; None if the number of test images is not known.
    """
    chosen = [runs[rung] for rung in weights]
    n = chosen[0].n_test
    if any(run.n_test != n or not run.n_test for run in chosen):
        return None
    if len(chosen) == 1:
        correct = round(combination(runs, weights) * n)
        return statistics.wilson(correct, n), f"binomial interval of {n:,} test images"
    if all(run.labels is not None for run in chosen) and all(
        np.array_equal(run.labels, chosen[0].labels) for run in chosen
    ):
        scores = sum(weight * runs[rung].correct for rung, weight in weights.items())
        return statistics.paired_interval(scores), f"paired interval of {n:,} test images"
    half = 1.96 * math.sqrt(
        sum(
            weight**2 * accuracy * (1 - accuracy) / n
            for rung, weight in weights.items()
            for accuracy in [runs[rung].metrics.get("test_accuracy", math.nan)]
        )
    )
    value = combination(runs, weights)
    return (value - half, value + half), (
        f"unpaired interval of {n:,} test images, for lack of predictions"
    )


def _tested(weights: Weights) -> dict[str, Any]:
    return {
        "measure": lambda runs, claim, ladder: combination(runs, weights(runs, claim, ladder)),
        "one_run": lambda runs, claim, ladder: images_interval(runs, weights(runs, claim, ladder)),
    }


def _validation_images(runs: Runs, claim: Claim, ladder: list[str]):
    run = runs[claim.rung]
    n = run.validation_images
    if not n:
        return None
    correct = round(_last("val_accuracy")(run) * n)
    return statistics.wilson(correct, n), f"binomial interval of {n:,} validation images"


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
        _of_run(lambda run: float(run.history["accuracy"].max())),
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
        _of_run(lambda run: float(run.history["val_accuracy"].max())),
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
