"""A bound, and the verdict that an interval gives on it."""

import math
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from report.analysis.statistics import Interval
from resnet.study import Strict

Verdict = Literal[
    "holds",
    "fails",
    "fails (under our assumptions)",
    "undecided",
    "not run",
    "not comparable",
]  # fmt: skip
ASSUMED: Final = "fails (under our assumptions)"
"""The verdict on what fails where a value that the study leaves open may be the reason."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Bound(Strict):
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

    @property
    def ends(self) -> Interval:
        """Both, infinite where there is none."""
        bottom = -math.inf if self.min is None else self.min
        return bottom, math.inf if self.max is None else self.max

    def judge(self, low: float, high: float) -> Verdict:
        """Holds if all of the interval lies inside, fails if none does; without one undecided."""
        bottom, top = self.ends
        if bottom <= low and high <= top:
            return "holds"
        return "fails" if high < bottom or low > top else "undecided"


def qualified(verdict: Verdict, comparable: bool, assumed: str) -> Verdict:
    """Returns a verdict as it may be given.

    Args:
        verdict: by an interval.
        comparable: whether the runs are of what the study is about.
        assumed: what of this project's reading may be why it fails, or "".
    """
    if not comparable:
        return "not comparable"
    return ASSUMED if verdict == "fails" and assumed else verdict
