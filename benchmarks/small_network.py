"""Small networks: this project, plain ``fit``, and Keras's step in a bare compiled loop.

    python -m benchmarks.small_network [--turns 5]

Batch 10 of 28x28x1 images, plain SGD, one thread: 100 sigmoid units, and two convolutions with
pooling before them. TensorFlow alone, whose call takes longer than such a step.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.sides import compare, parser, report, serve
from benchmarks.subjects import experiment

BATCH, IMAGES = 10, 20_000
NETWORKS = ("dense", "convolutions")


def network(kind: str) -> Any:
    """Builds one in Keras's own layers."""
    import keras
    from keras import layers

    x = image = keras.Input((28, 28, 1))
    for filters in (20, 40) if kind == "convolutions" else ():
        x = layers.MaxPooling2D(2)(layers.Conv2D(filters, 5, activation="relu")(x))
    x = layers.Dense(100, activation="sigmoid")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (IMAGES, 28, 28, 1), "uint8")
    return pixels, generator.integers(0, 10, IMAGES)


def compiled(kind: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Builds and compiles one as a script has it, with its images."""
    import keras

    made, (pixels, classes) = network(kind), images()
    made.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy", metrics=["accuracy"])
    return made, pixels.astype("float32") / 255, keras.utils.to_categorical(classes, 10)


def this_project(kind: str) -> Callable[[], float]:
    from resnet.training import groups, make_steps

    changes = [f"training.batch_size={BATCH}", "training.optimizer={name: sgd}"]
    steps = make_steps(network(kind), *images(), experiment("1", changes))
    starts = range(0, IMAGES, BATCH)
    batches = [(np.arange(start, start + BATCH, dtype="int32"), None) for start in starts]

    def work() -> float:
        for first, some in groups(batches, steps.per_call):  # type: ignore[arg-type]
            steps.train(some, first)
        steps.logs()  # waits for the device
        return IMAGES

    return work


def plain_fit(kind: str) -> Callable[[], float]:
    made, x, y = compiled(kind)

    def work() -> float:
        made.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        return IMAGES

    return work


def bare_loop(kind: str) -> Callable[[], float]:
    import tensorflow as tf

    made, x, y = compiled(kind)
    made.train_on_batch(x[:BATCH], y[:BATCH])  # makes what is made on first use
    pixels, truth = tf.constant(x), tf.constant(y)

    def one(i: Any) -> Any:
        part = slice(i * BATCH, (i + 1) * BATCH)
        with tf.control_dependencies([*made.train_step((pixels[part], truth[part])).values()]):
            return i + 1

    @tf.function(autograph=False)
    def epoch() -> None:
        limit = IMAGES // BATCH
        tf.while_loop(lambda i: i < limit, one, [tf.constant(0)], parallel_iterations=1)

    def work() -> float:
        epoch()
        return IMAGES

    return work


SIDES: dict[str, Callable[[str], Callable[[], float]]] = {
    "plain fit": plain_fit,
    "this project": this_project,
    "bare loop of train_step": bare_loop,
}


def main() -> None:
    options = parser(__doc__, turns=5)
    options.add_argument("--network", default="", help="of dense and convolutions")
    chosen = options.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if chosen.side:
        return serve(SIDES[chosen.side](chosen.network))
    rates = {}
    for kind in NETWORKS:
        rates[kind], _ = compare(SIDES, chosen.turns, "--network", kind)
    report("small_network", "Small networks", "images/s, batch 10, one thread", rates, "plain fit")


if __name__ == "__main__":
    main()
