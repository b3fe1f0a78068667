"""Augmented images a second, on one core: this project, ImageDataGenerator, Keras's layers.

    python -m benchmarks.augmentation [--turns 7]

Rung 2's transform of 32x32 images, drawing the parameters included. Keras's layers are the nearest
they offer: each resamples by itself, so that an image is resampled three times.
"""

import os
from collections.abc import Callable
from typing import cast

import numpy as np

from benchmarks.sides import compare, parser, report, serve
from benchmarks.subjects import BATCH, SHAPE, experiment
from resnet.study import Augmentation

N = 40 * BATCH
STARTS = range(0, N, BATCH)
SETTINGS = cast(Augmentation, experiment("2").data.augmentation)


def images() -> np.ndarray:
    return np.random.default_rng(0).random((N, *SHAPE), "float32")


def this_project() -> Callable[[], float]:
    import tensorflow as tf

    from resnet.network import augmentation

    x = tf.constant(images())
    generator = np.random.default_rng(0)
    apply = tf.function(augmentation.apply)

    def work() -> float:
        drawn = augmentation.draw(SETTINGS, generator, N, SHAPE[:2])
        transforms = augmentation.projective(drawn, SHAPE[:2])
        for start in STARTS:
            apply(x[start : start + BATCH], transforms[start : start + BATCH])
        return N

    return work


def image_data_generator() -> Callable[[], float]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    settings = SETTINGS.model_dump()
    flow = ImageDataGenerator(**settings).flow(images(), batch_size=BATCH, shuffle=False)

    def work() -> float:
        for i in range(len(flow)):
            flow[i]
        return N

    return work


def keras_layers() -> Callable[[], float]:
    import keras
    import tensorflow as tf

    shifts = SETTINGS.height_shift_range, SETTINGS.width_shift_range
    zoom = -SETTINGS.zoom_range, SETTINGS.zoom_range
    layers = keras.Sequential(
        [
            keras.layers.RandomRotation(SETTINGS.rotation_range / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(*shifts, fill_mode="nearest"),
            keras.layers.RandomZoom(zoom, zoom, fill_mode="nearest"),
            keras.layers.RandomFlip("horizontal"),
        ]
    )
    x = tf.constant(images())
    apply = tf.function(lambda batch: layers(batch, training=True))

    def work() -> float:
        for start in STARTS:
            apply(x[start : start + BATCH])
        return N

    return work


SIDES = {
    "ImageDataGenerator": image_data_generator,
    "Keras's random layers": keras_layers,
    "this project": this_project,
}


def main() -> None:
    chosen = parser(__doc__, turns=7).parse_args()
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("a process can be bound to one core on Linux alone")
    if chosen.side:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return serve(SIDES[chosen.side]())
    rates, _ = compare(SIDES, chosen.turns)
    unit = "images/s on one core"
    report("augmentation", "Augmentation", unit, {"": rates}, "ImageDataGenerator")


if __name__ == "__main__":
    main()
