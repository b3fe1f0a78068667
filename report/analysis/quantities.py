"""Defines the quantities that a claim can be about, and measures them."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from report.analysis.runs import Run

Unit = Literal["accuracy", "points", "epoch", "ratio", "images", "number"]

GAP_EPOCHS = 3
SLOPE_EPOCHS = 10
"""Slopes are fitted to this number of epochs before and after a learning-rate drop."""


class Quantity(NamedTuple):
    """A quantity that a claim can be about; an epoch of 0 or infinity means "never".

    Attributes:
        measure: function of a run and the run it is compared with; returns the value or NaN.
        weights: function of a rung, the rung it is compared with, and the ladder; returns weights
            for one or several sums of accuracies. The claim is about the least sum.
        vote: two weights, for a vote's accuracy and for a single network's accuracy.
        needs: key that a claim must have in addition to ``rung``.
        whole_ladder: whether all rungs of the ladder are needed.
    """

    unit: Unit
    meaning: str
    measure: Callable[[Run, Run], float] = lambda *_: math.nan
    weights: Callable[[str, str, list[str]], list[dict[str, float]]] | None = None
    vote: tuple[float, float] | None = None
    needs: Literal["", "against", "voters"] = ""
    whole_ladder: bool = False


def gap(run: Run) -> float:
    """Returns training minus validation accuracy, averaged over the last ``GAP_EPOCHS`` epochs."""
    return float((run.curve("accuracy") - run.curve("val_accuracy")).tail(GAP_EPOCHS).mean())


def drops(rate: pd.Series) -> list[int]:
    """Returns the epochs at which the learning rate drops by more than 0.1 %."""
    # single-precision rates may differ in their last bit without a drop
    return [int(epoch) for epoch in rate.index[rate < rate.shift() * 0.999]]


def _curve(key: str, of: Callable[[pd.Series], float]) -> Callable[[Run, Run], float]:
    return lambda run, _: float(of(run.curve(key)))


def _last(curve: pd.Series) -> float:
    return curve.tail(1).mean()


def _metric(key: str) -> Callable[[Run, Run], float]:
    return lambda run, _: run.metric(key)


def leads(rung: str, against: str, ladder: list[str]) -> list[dict[str, float]]:
    """Returns row weights per rival step; they give ``rung``'s gain minus the rival step's gain."""
    found = []
    for rival in (name for name in ladder[1:] if name != rung):
        weights: dict[str, float] = defaultdict(float)
        for name, sign in ((rung, 1.0), (rival, -1.0)):
            weights[name] += sign
            weights[ladder[ladder.index(name) - 1]] -= sign
        found.append({name: weight for name, weight in weights.items() if weight})
    return found


def _ratio(now: float, before: float) -> float:
    return now / before if before > 0 else math.nan


def _first_drop(rate: pd.Series) -> float:
    return math.nan if rate.empty else next(iter(drops(rate)), math.inf)


def _slope_ratio(run: Run, _: Run) -> float:
    if not (found := drops(run.curve("learning_rate"))):
        return math.nan
    drop, *later = found
    curve = (run.curve("accuracy") + run.curve("val_accuracy")) / 2
    before = curve.loc[drop - SLOPE_EPOCHS : drop - 1]
    # starts after the epoch of the drop, because accuracy jumps in that epoch
    after = curve.loc[drop + 1 : min([drop + SLOPE_EPOCHS, *(epoch - 1 for epoch in later)])]
    if curve.isna().any() or min(len(before), len(after)) < 3:
        return math.nan
    slopes = [float(np.polyfit(part.index, part, 1)[0]) for part in (before, after)]
    return slopes[1] / slopes[0] if slopes[0] > 0 else math.nan


QUANTITIES: dict[str, Quantity] = {
    "test_accuracy": Quantity("accuracy", "test accuracy", weights=lambda rung, *_: [{rung: 1.0}]),
    "test_gain": Quantity(
        "points",
        "test accuracy minus the test accuracy of the row named by 'against'",
        weights=lambda rung, against, _: [{rung: 1.0, against: -1.0}],
        needs="against",
    ),
    "gain_lead": Quantity(
        "points",
        "the rung's gain in test accuracy minus the largest gain of any other step",
        weights=leads,
        whole_ladder=True,
    ),
    "error_ratio": Quantity(
        "ratio",
        "test errors divided by the test errors of the row named by 'against'",
        lambda a, b: _ratio(1 - a.metric("test_accuracy"), 1 - b.metric("test_accuracy")),
        needs="against",
    ),
    "vote_errors": Quantity(
        "images",
        "mean number of test images that a vote misclassifies, over all sets of voters",
        vote=(-1, 0),
        needs="voters",
    ),
    "vote_gain": Quantity(
        "points",
        "mean test accuracy of a vote, over all sets of voters, minus that of a single network",
        vote=(1, -1),
        needs="voters",
    ),
    "final_train_accuracy": Quantity(
        "accuracy", "training accuracy of the last epoch", _curve("accuracy", _last)
    ),
    "max_train_accuracy": Quantity(
        "accuracy", "highest training accuracy of any epoch", _curve("accuracy", pd.Series.max)
    ),
    "final_val_accuracy": Quantity(
        "accuracy", "validation accuracy of the last epoch", _curve("val_accuracy", _last)
    ),
    "max_val_accuracy": Quantity(
        "accuracy",
        "highest validation accuracy of any epoch",
        _curve("val_accuracy", pd.Series.max),
    ),
    "final_gap": Quantity(
        "points",
        f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs",
        lambda run, _: gap(run),
    ),
    "gap_ratio": Quantity(
        "ratio",
        f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs, "
        "divided by that of the row named by 'against'. The divisor must be above zero",
        lambda run, against: _ratio(gap(run), gap(against)),
        needs="against",
    ),
    "test_loss": Quantity("number", "test loss (mean cross-entropy)", _metric("test_loss")),
    "best_epoch": Quantity(
        "epoch",
        "best epoch by early stopping's monitor or, without early stopping, by val_accuracy",
        _metric("best_epoch"),
    ),
    "stopped_epoch": Quantity(
        "epoch", "last epoch if early stopping ended the run, otherwise 0", _metric("stopped_epoch")
    ),
    "epochs_run": Quantity("epoch", "epochs trained", _metric("epochs_run")),
    "first_drop_epoch": Quantity(
        "epoch", "epoch of first learning-rate drop, or never", _curve("learning_rate", _first_drop)
    ),
    "slope_ratio_after_drop": Quantity(
        "ratio",
        "slope of accuracy (mean of training and validation) after the first learning-rate drop, "
        "divided by the slope before the drop. Each slope is fitted to at least three and at most "
        f"{SLOPE_EPOCHS} epochs that contain no other drop. Accuracy must rise before the drop",
        _slope_ratio,
    ),
}
