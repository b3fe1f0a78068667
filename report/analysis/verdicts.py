"""Defines bounds and verdicts, and judges whether an interval lies inside a bound."""

import math
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from report.analysis.statistics import Interval
from resnet.study import Strict

Verdict = Literal[
    "holds", "fails", "fails (under our assumptions)", "undecided", "not run", "not comparable"
]
ASSUMED: Final = "fails (under our assumptions)"
"""The verdict if a row or claim fails, but a value the study does not state may be the cause."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Bound(Strict):
    """The range in which a quantity must lie, both ends included; None means no limit."""

    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _has_room(self) -> "Bound":
        if self.min is None and self.max is None:
            raise ValueError("a bound needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self

    @property
    def ends(self) -> Interval:
        bottom = -math.inf if self.min is None else self.min
        return bottom, math.inf if self.max is None else self.max

    def judge(self, low: float, high: float) -> Verdict:
        """Returns "holds" if the interval is in the bound, "fails" if outside, else "undecided"."""
        bottom, top = self.ends
        if bottom <= low and high <= top:
            return "holds"
        return "fails" if high < bottom or low > top else "undecided"


def qualified(verdict: Verdict, comparable: bool, assumed: str) -> Verdict:
    """Changes the verdict if runs are not comparable, or if assumptions may explain a failure."""
    if not comparable:
        return "not comparable"
    return ASSUMED if verdict == "fails" and assumed else verdict
