"""Compiled training and evaluation steps. The steps for JAX are in :mod:`resnet.training.program`.

Steps use Keras's own ``train_step`` and ``test_step``. The images stay on the network's device. A
call passes only the images' positions and transforms to the compiled program, which looks up,
scales and augments the images.
"""

import functools
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
from keras import ops

from resnet.network import augmentation, keras, multiply_adds
from resnet.study import Experiment, signatures

EVALUATION_BATCH = 256
"""Images per batch in validation and testing. The results do not depend on this number."""
SMALL, STEPS = 50e6, 100
"""On TensorFlow, a call runs 100 steps if a batch needs fewer than 50e6 multiply-adds.

Each call adds 0.4 ms to the time of its steps. A step takes at least 50 ms with the study's
networks, but only 0.1 ms with a dense network.
"""

Batch = tuple[np.ndarray, np.ndarray | None]
"""Positions of images, int32 (n,), and transforms for ``augmentation.apply`` (or None)."""


class Steps:
    """Compiled steps of one network on one set of images.

    Args:
        network: uncompiled network. The constructor compiles it.
        experiment: sets the optimizer, the loss, the pixel scale and the fill mode.
    """

    lanes = 1
    """Number of networks that the compiled program trains side by side."""
    per_call = 1
    """Largest number of steps per call of :meth:`train`."""

    def __init__(self, network: keras.Model, experiment: Experiment):
        self.network = network
        self._pixel_scale = experiment.data.pixel_scale
        training = experiment.training
        if named := training.optimizer:
            kind = signatures.keras_class(keras.optimizers, named.name)
            optimizer = kind(learning_rate=training.learning_rate, **named.settings)
        else:
            optimizer = keras.optimizers.Adam(training.learning_rate)
        smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing)
        network.compile(
            optimizer=optimizer,
            loss=smoothed if training.label_smoothing else "categorical_crossentropy",
            metrics=["accuracy"],
        )
        # Variables of loss, metrics and optimizer, created on first use, must exist before tracing.
        some = ops.one_hot([0], network.output.shape[-1])
        network.compute_loss(y=some, y_pred=some)
        network.compute_metrics(None, some, some)
        network.optimizer.build(network.trainable_variables)
        network.reset_metrics()

    def reset(self) -> None:
        """Resets running loss and accuracy, and lets later steps use a changed learning rate."""
        self.network.reset_metrics()

    def logs(self) -> dict[str, float]:
        """Returns the running ``loss`` and ``accuracy`` since :meth:`reset`."""
        return {k: float(v) for k, v in self.network.get_metrics_result().items()}

    def train(self, batches: list[Batch], step: int) -> None:
        """Runs one optimizer step for each batch.

        Args:
            batches: up to ``per_call`` batches of one size, from :func:`groups`.
            step: number of the first batch within the epoch.
        """
        raise NotImplementedError

    def test(self, batch: Batch, number: int) -> None:
        """Adds validation batch ``number`` of an epoch to the running loss and accuracy."""
        raise NotImplementedError

    def pull(self) -> None:
        """Sets the network's variables to their values after the last step."""

    def push(self) -> None:
        """Lets the next step start from the current values of the network's variables."""

    def close(self) -> None:
        """Ends training. :meth:`probabilities` still works afterwards."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Predicts class probabilities (n, classes) with the network's variables.

        Images are uint8 (n, height, width, channels).
        """
        scaled = images.astype("float32") / np.float32(self._pixel_scale)
        return self.network.predict(scaled, batch_size=EVALUATION_BATCH, verbose=0)


class TensorFlowSteps(Steps):
    """Steps of one network on TensorFlow. :func:`make_steps` explains the arguments."""

    def __init__(
        self, network: keras.Model, images: np.ndarray, labels: np.ndarray, experiment: Experiment
    ):
        import tensorflow as tf

        # Exact resume needs determinism, which makes a step 4 % slower on a CPU.
        tf.config.experimental.enable_op_determinism()
        super().__init__(network, experiment)
        # uint8 needs a quarter of float32's memory. CIFAR-10's training images take 154 MB.
        pixels = ops.convert_to_tensor(images, "uint8")
        truth = ops.one_hot(labels, network.output.shape[-1])
        apply = functools.partial(augmentation.apply, fill_mode=experiment.data.fill_mode)
        batch = functools.partial(look_up, pixels, truth, scale=self._pixel_scale, apply=apply)
        compiled = functools.partial(tf.function, reduce_retracing=True, autograph=False)

        def many(positions: Any, transforms: Any) -> None:
            def one(i: Any) -> Any:
                data = batch(positions[i], None if transforms is None else transforms[i])
                with tf.control_dependencies([*network.train_step(data).values()]):
                    return i + 1

            # The steps must run one after the other, as they do in separate calls.
            count = positions.shape[0]
            tf.while_loop(lambda i: i < count, one, [tf.constant(0)], parallel_iterations=1)

        self._train = compiled(lambda at, how: network.train_step(batch(at, how)))
        self._test = compiled(lambda at, how: network.test_step(batch(at, how)))
        self._many = compiled(many)
        size = experiment.training.batch_size
        if multiply_adds(network) * size < SMALL and len(images) >= STEPS * size:
            self.per_call = STEPS

    def train(self, batches: list[Batch], step: int) -> None:
        if len(batches) == self.per_call > 1:
            places, how = zip(*batches, strict=True)
            self._many(np.stack(places), None if how[0] is None else np.stack(how))
            return
        for positions, transforms in batches:
            self._train(positions, transforms)

    def test(self, batch: Batch, number: int) -> None:
        self._test(*batch)


def look_up(
    images: Any,
    labels: Any,
    positions: Any,
    transforms: Any,
    scale: float,
    apply: Callable[[Any, Any], Any],
) -> tuple[Any, Any]:
    """Makes a batch: images (batch, height, width, channels) in [0, 1], labels (batch, classes)."""
    x = ops.cast(ops.take(images, positions, axis=0), "float32") / scale
    if transforms is not None:
        x = apply(x, transforms)
    return x, ops.take(labels, positions, axis=0)


def groups(batches: list[Batch], size: int, start: int = 0) -> Iterator[tuple[int, list[Batch]]]:
    """Groups an epoch's batches into calls of :meth:`Steps.train`, from batch ``start`` on.

    A new call begins at every ``size``-th batch. All batches of a call have the same length.

    Yields:
        The number of a call's first batch, and the call's batches.
    """
    numbered = list(enumerate(batches))[start:]
    for _, call in groupby(numbered, key=lambda item: (item[0] // size, len(item[1][0]))):
        first, *others = call
        yield first[0], [first[1], *(batch for _, batch in others)]
