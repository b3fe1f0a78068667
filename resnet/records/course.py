"""Compares a run, while it trains, with recorded runs that have the same settings."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from resnet.records.json_format import Record, load_all
from resnet.study import Job, Key

WINDOW = 7  # number of epochs over which variances are averaged
DEVIATIONS = 3.0  # half-width of the expected band, in standard deviations of validation accuracy
PATIENCE = 3  # a run is off course after this many epochs in a row outside the band


@dataclass(frozen=True)
class Course:
    """Validation accuracies per epoch, from recorded runs with the same settings and dataset.

    The index of ``epochs`` is the epoch, from 1. The columns ``lowest`` and ``highest`` hold the
    recorded extremes. ``low`` and ``high`` limit the band in which another run is expected.
    """

    epochs: pd.DataFrame

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Course":
        first, *others = records
        runs = [pd.Series(record.curves["val_accuracy"]) for record in (first, *others)]
        curves = pd.concat(runs, axis=1).rename(index=lambda row: row + 1)
        mean, jumps = curves.mean(axis=1), curves.diff().pow(2) / 2
        variances = pd.concat([curves.var(axis=1), jumps.mean(axis=1)], axis=1)
        around = variances.rolling(WINDOW, center=True, min_periods=1).mean()
        # If there are few runs, they may agree by chance, so ``variance`` is at least ``binomial``.
        # The number of test images stands in for the similar number of validation images.
        binomial = mean * (1 - mean) / first.predictions.images
        variance = pd.concat([around, binomial], axis=1).max(axis=1)
        half = DEVIATIONS * np.sqrt(variance * (1 + 1 / curves.count(axis=1)))
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
        """Returns whether the last ``PATIENCE`` accuracies are all above or all below the band.

        ``accuracies`` are the validation accuracies of all epochs so far. NaN counts as too low.
        """
        last = pd.Series(accuracies, range(1, len(accuracies) + 1)).tail(PATIENCE)
        band = self.epochs.reindex(last.index)
        if len(last) < PATIENCE or band["low"].isna().any():
            return False
        return bool((last > band["high"]).all() or not (last >= band["low"]).any())


def courses(folder: Path, jobs: Iterable[Job], fingerprint: str) -> dict[str, Course]:
    """Returns the courses by experiment hash. Omits experiments without records on the dataset."""
    digests = {job.experiment.hash(): Key.of(job, "", fingerprint, "").digest for job in jobs}
    found = {name: load_all(folder, digest).values() for name, digest in digests.items()}
    return {name: Course.of(records) for name, records in found.items() if records}
