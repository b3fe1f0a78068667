"""Makes the states of a training under way small enough for git.

    python results/unfinished/pack.py checkpoints results/unfinished

Going on needs every epoch's figures, but the weights of few epochs alone: the newest, the best so
far by each monitor, and those where another run may part from this one (its last epoch, or where
the learning rate of rungs 4 and 5 drops). In all others they become NaN, which no result survives.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

LAST = (25, 50, 75)
"""Epochs after which some rung ends."""
PATIENCE, MIN_DELTA = 5, 1e-4
"""Of rung 4's ReduceLROnPlateau."""


def needed(records: list[dict[str, float]]) -> set[int]:
    """Numbers of the epochs, from 1, whose weights somebody may read again."""
    losses = [record["val_loss"] for record in records]
    accuracies = [record["val_accuracy"] for record in records]
    kept = {len(records), 1 + int(np.argmin(losses)), 1 + int(np.argmax(accuracies)), *LAST}
    best, waited = np.inf, 0
    for epoch, loss in enumerate(losses, 1):
        waited = 0 if loss < best - MIN_DELTA else waited + 1
        best = min(best, loss) if not waited else best
        if waited >= PATIENCE:
            kept.add(epoch)
            waited = 0
    return kept


def paths(records: dict[str, dict], rates: tuple[float, ...] = ()) -> Iterator[list[str]]:
    """The ways through the states, by their names: one of each schedule of learning rates."""
    further = [
        (name, (*rates, record["learning_rate"]))
        for name, record in records.items()
        if name == _name([*rates, record["learning_rate"]])
    ]
    for name, longer in further:
        for path in paths(records, longer):
            yield [name, *path]
    if not further:
        yield []


def _name(rates: list[float]) -> str:
    digest = hashlib.sha256(json.dumps(rates).encode()).hexdigest()  # as in resnet.training
    return f"{len(rates):04d}-{digest[:16]}"


def pack(source: Path, target: Path) -> None:
    """Packs one trajectory's folder; states in the target that are gone in the source go too."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.npz"):
        old.unlink()
    states = {path.name.removesuffix(".npz"): dict(np.load(path)) for path in source.glob("*.npz")}
    records = {
        name: json.loads(arrays["meta"].tobytes())["record"] for name, arrays in states.items()
    }
    records = {name: record for name, record in records.items() if record}
    kept = {name for name in states if name not in records}
    for path in paths(records):
        epochs = needed([records[name] for name in path])
        kept |= {name for epoch, name in enumerate(path, 1) if epoch in epochs}
    for name, arrays in states.items():
        if name not in kept:
            for key, array in arrays.items():
                if key != "meta" and array.size > 1:  # the learning rate is a number
                    arrays[key] = np.full_like(array, np.nan if array.dtype.kind == "f" else 0)
        np.savez_compressed(target / f"{name}.npz", **arrays)


if __name__ == "__main__":
    top, to = map(Path, sys.argv[1:])
    for folder in sorted(path for path in top.iterdir() if any(path.glob("*.npz"))):
        pack(folder, to / folder.name)
