"""Is a run on course? Its validation accuracy held against recorded runs of the same settings."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from resnet.records.record import Record, files, load
from resnet.study import Job, Key

WINDOW = 3
"""Epochs on either side that tell how far recorded curves jump about at an epoch."""
DEVIATIONS = 3.0
"""Deviations from the recorded mean within which seeds and jumps explain an epoch.

Each of the first 12 recorded runs of rows with several, held against the others of its row: 1 % of
their epochs lie outside, and none is warned of (tests/records/test_course.py).
"""
PATIENCE = 3
"""Epochs in a row outside of that before anything is said."""


@dataclass(frozen=True)
class Course:
    """What recorded runs of one configuration on one dataset did; epochs count from 1.

    ``curves`` has an epoch a row and a recorded run a column, NaN where that one had ended.
    """

    curves: pd.DataFrame

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Course":
        """Makes the course of some runs of one configuration."""
        curves = [pd.Series(record.curves["val_accuracy"]) for record in records]
        frame = pd.concat(curves, axis=1)
        return cls(frame.set_index(frame.index + 1))

    def recorded(self, epoch: int) -> tuple[float, float] | None:
        """Returns the lowest and the highest recorded accuracy of an epoch, if there is one."""
        if epoch not in self.curves.index:
            return None
        row = self.curves.loc[epoch]
        return float(row.min()), float(row.max())

    def expected(self, epoch: int) -> tuple[float, float] | None:
        """Returns from where to where seeds and jumps explain an epoch's accuracy."""
        if epoch not in self.curves.index:
            return None
        row = self.curves.loc[epoch].dropna()
        near = self.curves.loc[epoch - WINDOW : epoch + WINDOW]
        # A recorded run tells by its own steps from epoch to epoch how far it jumps about; where
        # accuracy still rises they are larger than that, on the safe side.
        jumps = np.nanmean(np.square(near.diff().iloc[1:].to_numpy())) / 2 if len(near) > 1 else 0.0
        between = np.nan_to_num(near.var(axis=1).mean())
        half = DEVIATIONS * float(np.sqrt(max(jumps, between) * (1 + 1 / len(row))))
        return float(row.mean()) - half, float(row.mean()) + half

    def off(self, accuracies: list[float]) -> bool:
        """Says whether the last ``PATIENCE`` epochs lie outside of that, all on one side.

        Args:
            accuracies: of validation, of every epoch so far.
        """
        if len(accuracies) < PATIENCE:
            return False
        sides = set()
        for epoch in range(len(accuracies) - PATIENCE + 1, len(accuracies) + 1):
            if not (expected := self.expected(epoch)):
                return False
            low, high = expected
            value = accuracies[epoch - 1]
            # NaN, of a run that diverged, lies nowhere
            sides.add("inside" if low <= value <= high else "above" if value > high else "below")
        return len(sides) == 1 and sides != {"inside"}


def courses(folder: Path, jobs: Iterable[Job], fingerprint: str) -> dict[str, Course]:
    """Returns the course of each experiment that somebody recorded, by its hash.

    Args:
        folder: of records.
        jobs: of the experiments.
        fingerprint: of their images.

    Raises:
        UserError: a record is damaged.
    """
    found = {}
    for experiment in {job.experiment.hash(): job.experiment for job in jobs}.values():
        digest = Key.of(Job(experiment, 0), "", fingerprint, "").digest
        if paths := files(folder, digest):
            found[experiment.hash()] = Course.of(map(load, paths))
    return found
