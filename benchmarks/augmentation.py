"""Augmented images a second, on one core: this project, ImageDataGenerator, Keras's layers.

    python -m benchmarks.augmentation [--turns 7]

Rung 2's transform of 32x32 images, drawing the parameters included. Keras's layers are the nearest
they offer: each resamples by itself, so that an image is resampled three times.
"""

import argparse
import os
from collections.abc import Callable
from typing import cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.sides import compare, report, serve
from resnet import config

BATCH, BATCHES = 32, 40
STUDY = cast(config.Augmentation, config.load(config.find()["02_augmentation"]).data.augmentation)


def images() -> np.ndarray:
    return np.random.default_rng(0).random((BATCH * BATCHES, 32, 32, 3), "float32")


def this_project() -> Callable[[], float]:
    import tensorflow as tf

    from resnet import augment

    x = tf.constant(images())
    generator = np.random.default_rng(0)
    apply = tf.function(augment.apply)

    def work() -> float:
        drawn = augment.draw(STUDY, generator, len(x), (32, 32))
        transforms = augment.projective(drawn, (32, 32))
        for i in range(0, len(x), BATCH):
            apply(x[i : i + BATCH], transforms[i : i + BATCH])
        return len(x)

    return work


def image_data_generator() -> Callable[[], float]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    settings = STUDY.model_dump()
    flow = ImageDataGenerator(**settings).flow(images(), batch_size=BATCH, shuffle=False)

    def work() -> float:
        for i in range(BATCHES):
            flow[i]
        return BATCH * BATCHES

    return work


def keras_layers() -> Callable[[], float]:
    import keras
    import tensorflow as tf

    layers = keras.Sequential(
        [
            keras.layers.RandomRotation(STUDY.rotation_range / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(
                STUDY.height_shift_range, STUDY.width_shift_range, fill_mode="nearest"
            ),
            keras.layers.RandomZoom(
                (-STUDY.zoom_range, STUDY.zoom_range),
                (-STUDY.zoom_range, STUDY.zoom_range),
                fill_mode="nearest",
            ),
            keras.layers.RandomFlip("horizontal"),
        ]
    )
    x = tf.constant(images())
    apply = tf.function(lambda batch: layers(batch, training=True))

    def work() -> float:
        for i in range(0, len(x), BATCH):
            apply(x[i : i + BATCH])
        return len(x)

    return work


SIDES = {
    "ImageDataGenerator": image_data_generator,
    "Keras's random layers": keras_layers,
    "this project": this_project,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("a process can be bound to one core on Linux alone")
    if arguments.side:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        serve(SIDES[arguments.side]())
        return
    sides = {side: ["-m", "benchmarks.augmentation", "--side", side] for side in SIDES}
    rates, _ = compare(sides, arguments.turns)
    report(
        "augmentation", "Augmentation", "images/s on one core", {"": rates}, "ImageDataGenerator"
    )


if __name__ == "__main__":
    main()
