"""Makes the states of a training under way small enough for git.

    .venv/bin/python results/unfinished/pack.py checkpoints results/unfinished

Going on needs every epoch's figures, but everything only of the newest and of those where another
run may part from this one (its last epoch, or where the learning rate of rungs 4 and 5 drops); of
the best so far by each monitor the weights. All else becomes NaN, which no result survives.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from resnet import checkpoints

LAST = (25, 50, 75)
"""Epochs after which some rung ends."""
PATIENCE, MIN_DELTA = 5, 1e-4
"""Of rung 4's ReduceLROnPlateau; the latter of early stopping too."""


def needed(records: list[dict[str, float]]) -> tuple[set[int], set[int]]:
    """Numbers of the epochs, from 1, that are needed whole, and of those whose weights are."""
    whole, weights = {len(records), *LAST}, set()
    for monitor, sign in (("val_accuracy", -1), ("val_loss", 1)):
        best, best_epoch, waited = np.inf, 1, 0
        for epoch, record in enumerate(records, 1):
            waited += 1
            value = sign * record[monitor]
            if np.float32(value + MIN_DELTA) < np.float32(best):  # as Keras's callbacks compare
                best, best_epoch, waited = value, epoch, 0
            if waited == PATIENCE:
                whole.add(epoch)
                waited = 0
        weights.add(best_epoch)
    return whole, weights


def paths(records: dict[str, dict], rates: tuple[float, ...] = ()) -> Iterator[list[str]]:
    """The ways through the states, by their names: one of each schedule of learning rates."""
    further = [
        (name, rate)
        for name, rate in ((name, record["learning_rate"]) for name, record in records.items())
        if name == checkpoints.name([*rates, rate])
    ]
    for name, rate in further:
        for path in paths(records, (*rates, rate)):
            yield [name, *path]
    if not further:
        yield []


def pack(source: Path, target: Path) -> None:
    """Packs one trajectory's folder; states in the target that are gone in the source go too."""
    states = {path.name.removesuffix(".npz"): dict(np.load(path)) for path in source.glob("*.npz")}
    records = {
        name: record
        for name, arrays in states.items()
        if (record := json.loads(arrays["meta"].tobytes())["record"])
    }
    whole, weights = states.keys() - records.keys(), set()  # the former: an epoch in progress
    for path in paths(records):
        found = needed([records[name] for name in path])
        for names, epochs in zip((whole, weights), found, strict=True):
            names |= {name for epoch, name in enumerate(path, 1) if epoch in epochs}
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.npz"):
        old.unlink()
    for name, arrays in states.items():
        optimizer = False  # its variables come after the network's, the first is a number
        for key, array in arrays.items():
            optimizer |= array.ndim == 0
            unused = name not in whole and (optimizer or name not in weights)
            if unused and key != "meta" and array.size > 1:  # the learning rate is a number
                arrays[key] = np.full_like(array, np.nan if array.dtype.kind == "f" else 0)
        np.savez_compressed(target / f"{name}.npz", **arrays)


if __name__ == "__main__":
    top, to = map(Path, sys.argv[1:])
    for folder in sorted(path for path in top.iterdir() if any(path.glob("*.npz"))):
        pack(folder, to / folder.name)
