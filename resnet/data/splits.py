"""How labelled images are drawn, the same for everybody."""

import numpy as np


def stratified(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Draws the same share of each class, by seed 0.

    Args:
        labels: class indices (n,).
        fraction: share of each class, rounded to whole images.

    Returns:
        bool (n,), whether the image is drawn.
    """
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.random.default_rng([0, label]).permutation(np.flatnonzero(labels == label))
        drawn[own[: round(len(own) * fraction)]] = True
    return drawn
