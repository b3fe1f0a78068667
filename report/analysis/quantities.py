"""The quantities that a claim can be about, and how each is measured."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from report.analysis.runs import Run

Unit = Literal["accuracy", "points", "epoch", "ratio", "images", "number"]

GAP_EPOCHS = 3
"""Number of last epochs over which a gap of curves is averaged."""
SLOPE_EPOCHS = 10
"""Epochs before and after a drop of the learning rate over which slopes are fitted."""


class Quantity(NamedTuple):
    """A quantity: its unit, its meaning in words, and how it is measured.

    ``measure`` takes a run and the run that it is compared with, and returns a value, NaN if the
    runs lack it. ``weights`` takes the rung, the rung that it is compared with and the ladder, and
    returns weights of accuracies; the claim is about the least weighted sum. ``vote`` holds the
    weights of the accuracies of a vote and of one network. ``needs`` is the key that a claim must
    have beside ``rung``. Epochs 0 and infinity mean "never".
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
    """Finds the first epoch at each lower learning rate."""
    # single-precision rates: a change is at least a factor, not the last bit
    return [int(epoch) for epoch in rate.index[rate < rate.shift() * 0.999]]


def _curve(key: str, of: Callable[[pd.Series], float]) -> Callable[[Run, Run], float]:
    return lambda run, _: float(of(run.curve(key)))


def _last(curve: pd.Series) -> float:
    return curve.tail(1).mean()


def _metric(key: str) -> Callable[[Run, Run], float]:
    return lambda run, _: run.metric(key)


def leads(rung: str, against: str, ladder: list[str]) -> list[dict[str, float]]:
    """Returns the weights of a rung's gain less the gain of each other step of the ladder."""
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
    # the jump at a drop is no slope
    after = curve.loc[drop + 1 : min([drop + SLOPE_EPOCHS, *(epoch - 1 for epoch in later)])]
    if curve.isna().any() or min(len(before), len(after)) < 3:
        return math.nan
    slopes = [float(np.polyfit(part.index, part, 1)[0]) for part in (before, after)]
    return slopes[1] / slopes[0] if slopes[0] > 0 else math.nan


QUANTITIES: dict[str, Quantity] = {
    "test_accuracy": Quantity("accuracy", "test accuracy", weights=lambda rung, *_: [{rung: 1.0}]),
    "test_gain": Quantity(
        "points",
        "test accuracy less that of the system named by 'against'",
        weights=lambda rung, against, _: [{rung: 1.0, against: -1.0}],
        needs="against",
    ),
    "gain_lead": Quantity(
        "points",
        "the rung's gain in test accuracy less the largest gain of another step",
        weights=leads,
        whole_ladder=True,
    ),
    "error_ratio": Quantity(
        "ratio",
        "test errors as a share of those of the system named by 'against'",
        lambda a, b: _ratio(1 - a.metric("test_accuracy"), 1 - b.metric("test_accuracy")),
        needs="against",
    ),
    "vote_errors": Quantity(
        "images",
        "test images that a vote of seeds gets wrong, mean over every choice of as many seeds",
        vote=(-1, 0),
        needs="voters",
    ),
    "vote_gain": Quantity(
        "points",
        "test accuracy of a vote of seeds less the accuracy of one network, mean over every choice",
        vote=(1, -1),
        needs="voters",
    ),
    "final_train_accuracy": Quantity(
        "accuracy", "training accuracy of the last epoch", _curve("accuracy", _last)
    ),
    "max_train_accuracy": Quantity(
        "accuracy", "largest training accuracy of any epoch", _curve("accuracy", pd.Series.max)
    ),
    "final_val_accuracy": Quantity(
        "accuracy", "validation accuracy of the last epoch", _curve("val_accuracy", _last)
    ),
    "max_val_accuracy": Quantity(
        "accuracy",
        "largest validation accuracy of any epoch",
        _curve("val_accuracy", pd.Series.max),
    ),
    "final_gap": Quantity(
        "points",
        f"training less validation accuracy, mean of the last {GAP_EPOCHS} epochs",
        lambda run, _: gap(run),
    ),
    "gap_ratio": Quantity(
        "ratio",
        "the final gap as a share of that of the system named by 'against', if that one has any",
        lambda run, against: _ratio(gap(run), gap(against)),
        needs="against",
    ),
    "test_loss": Quantity("number", "test loss, a mean cross-entropy", _metric("test_loss")),
    "best_epoch": Quantity(
        "epoch", "the best epoch by the metric that early stopping monitors", _metric("best_epoch")
    ),
    "stopped_epoch": Quantity(
        "epoch",
        "the epoch after which early stopping ended the run, 0 if it did not",
        _metric("stopped_epoch"),
    ),
    "epochs_run": Quantity("epoch", "epochs trained", _metric("epochs_run")),
    "first_drop_epoch": Quantity(
        "epoch", "the first epoch at a lower learning rate", _curve("learning_rate", _first_drop)
    ),
    "slope_ratio_after_drop": Quantity(
        "ratio",
        f"slope of the accuracy curves (mean of training and validation) in the {SLOPE_EPOCHS} "
        "epochs after the first learning-rate drop, or until the next, as a share of the slope "
        "before it; takes a drop with three epochs on either side and a rise before it",
        _slope_ratio,
    ),
}
