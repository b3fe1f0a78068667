"""Compares a run while it trains with recorded runs of the same settings: is it on course?"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from resnet.records.json_format import Record, load_all
from resnet.study import Job, Key

WINDOW = 7  # epochs, around an epoch, whose curves tell the deviation there
DEVIATIONS = 3.0  # half width of the expected band; tests/records/test_course.py tries it
PATIENCE = 3  # epochs in a row outside of the band before a run is off course


@dataclass(frozen=True)
class Course:
    """Validation accuracies of recorded runs of one configuration on one dataset.

    ``epochs`` has one row per epoch, from 1, with the columns ``lowest`` and ``highest`` (recorded
    accuracies; see ``recorded``), ``low`` and ``high`` (the band in which another seed is expected;
    see ``expected``).
    """

    epochs: pd.DataFrame

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Course":
        """Makes the course of at least one record of one configuration."""
        first, *others = records
        runs = [pd.Series(record.curves["val_accuracy"]) for record in (first, *others)]
        curves = pd.concat(runs, axis=1).rename(index=lambda row: row + 1)
        mean, jumps = curves.mean(axis=1), curves.diff().pow(2) / 2

        def around(values: pd.Series) -> pd.Series:
            return values.rolling(WINDOW, center=True, min_periods=1).mean()

        # Few seeds may lie together by chance. A deviation is never taken to be less than the
        # binomial one of so many test images, about as many as validate.
        binomial = mean * (1 - mean) / first.predictions.images
        variances = [around(curves.var(axis=1)), around(jumps.mean(axis=1)), binomial]
        variance = pd.concat(variances, axis=1).max(axis=1) * (1 + 1 / curves.count(axis=1))
        half = DEVIATIONS * np.sqrt(variance)
        spans = {"lowest": curves.min(axis=1), "highest": curves.max(axis=1)}
        return cls(pd.DataFrame(spans | {"low": mean - half, "high": mean + half}))

    def recorded(self, epoch: int) -> tuple[float, float] | None:
        return self._span(epoch, "lowest", "highest")

    def expected(self, epoch: int) -> tuple[float, float] | None:
        return self._span(epoch, "low", "high")

    def _span(self, epoch: int, *names: str) -> tuple[float, float] | None:
        known = epoch in self.epochs.index
        return tuple(self.epochs.loc[epoch, [*names]]) if known else None

    def off(self, accuracies: list[float]) -> bool:
        """Returns whether the last ``PATIENCE`` epochs lie outside of the band, all on one side.

        ``accuracies`` are those of validation, of every epoch so far; NaN counts as too low.
        """
        last = pd.Series(accuracies, range(1, len(accuracies) + 1)).tail(PATIENCE)
        band = self.epochs.reindex(last.index)
        if len(last) < PATIENCE or band["low"].isna().any():
            return False
        return bool((last > band["high"]).all() or not (last >= band["low"]).any())


def courses(folder: Path, jobs: Iterable[Job], fingerprint: str) -> dict[str, Course]:
    """Returns the course of each experiment that has records on a dataset, by its hash."""
    digests = {job.experiment.hash(): Key.of(job, "", fingerprint, "").digest for job in jobs}
    found = {name: load_all(folder, digest).values() for name, digest in digests.items()}
    return {name: Course.of(records) for name, records in found.items() if records}
