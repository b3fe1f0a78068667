"""Times Keras's ``fit``, this project and a compiled ``train_step`` loop on two small networks.

One network has 100 sigmoid units. In the other, two convolutions with pooling precede these units.
Both train with plain SGD on one TensorFlow thread. A batch has 10 images of 28x28 pixels.
"""

import os
from typing import Any

import typer

from benchmarks.sides import Side, Turn, compare, rate, report
from benchmarks.subjects import experiment, images, plain_images, project_steps

BATCH, IMAGES, SHAPE = 10, 20_000, (28, 28, 1)
FILTERS: dict[str, tuple[int, ...]] = {"dense": (), "convolutions": (20, 40)}


def build(filters: tuple[int, ...]) -> Any:
    import keras
    from keras import layers

    x = image = keras.Input(SHAPE)
    for count in filters:
        x = layers.MaxPooling2D(2)(layers.Conv2D(count, 5, activation="relu")(x))
    x = layers.Dense(100, activation="sigmoid")(layers.Flatten()(x))
    network = keras.Model(image, layers.Dense(10, activation="softmax")(x))
    network.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    return network


def plain_fit(filters: tuple[int, ...]) -> Turn:
    network, (x, y) = build(filters), plain_images(IMAGES, SHAPE)
    return lambda: rate(IMAGES, lambda: network.fit(x, y, BATCH, shuffle=False, verbose=0))


def this_project(filters: tuple[int, ...]) -> Turn:
    changes = [f"training.batch_size={BATCH}", "training.optimizer={name: sgd}"]
    return project_steps([build(filters)], images(IMAGES, SHAPE), experiment("1", changes))


def bare_loop(filters: tuple[int, ...]) -> Turn:
    import tensorflow as tf

    network, (x, y) = build(filters), plain_images(IMAGES, SHAPE)
    network.train_on_batch(x[:BATCH], y[:BATCH])  # creates variables before the loop is compiled
    pixels, labels = tf.constant(x), tf.constant(y)

    def step(i: Any) -> Any:
        batch = slice(i * BATCH, (i + 1) * BATCH)
        logs = network.train_step((pixels[batch], labels[batch]))
        with tf.control_dependencies([*logs.values()]):
            return i + 1

    @tf.function(autograph=False)
    def epoch() -> None:
        limit = IMAGES // BATCH
        tf.while_loop(lambda i: i < limit, step, [tf.constant(0)], parallel_iterations=1)

    return lambda: rate(IMAGES, epoch)


SIDES: dict[str, Side] = {
    "plain fit": plain_fit,
    "this project": this_project,
    "bare loop of train_step": bare_loop,
}


def main(turns: int = 5) -> None:
    """Times two small networks on one thread. Keras, this project and a bare loop take turns."""
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    rates = {name: compare(SIDES, filters, turns) for name, filters in FILTERS.items()}
    report("small_network", "Small networks", "images/s, batch 10, one thread", rates)


if __name__ == "__main__":
    typer.run(main)
