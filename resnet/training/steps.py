"""Compiled training and evaluation steps over images that stay where the network is.

The mathematics is Keras's own ``train_step`` and ``test_step``. The compiled program looks images
up by their positions, scales and augments them, so that a call passes positions and transforms
only. :mod:`resnet.training.program` has the steps on JAX.
"""

import functools
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
from keras import ops

from resnet.network import augmentation, keras, multiply_adds
from resnet.study import Experiment, Training, signatures

EVALUATION_BATCH = 256  # larger than the training batch: inference does not depend on it

SMALL, STEPS = 50e6, 100
"""Below 50e6 multiply-adds per batch, a call of TensorFlow makes 100 steps.

A call takes some 0.4 ms, a step of the study's networks 50 ms and more, of a dense network 0.1 ms.
"""

Batch = tuple[np.ndarray, np.ndarray | None]
"""int32 (n,) positions in the images; float32 (n, 6), (n, 8) or (n, 14) transforms, or None."""


class Steps:
    """One network's compiled steps over one set of images.

    Args:
        network: a built network; it is compiled here.
        experiment: gives optimizer, loss, pixel scale and fill mode.
    """

    lanes = 1
    """Number of networks that the compiled program is for."""
    per_call = 1
    """Number of steps for a call of :meth:`train`."""

    def __init__(self, network: keras.Model, experiment: Experiment):
        self.network = network
        self._pixel_scale = experiment.data.pixel_scale
        self._fill_mode = experiment.data.fill_mode
        training = experiment.training
        smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing)
        network.compile(
            optimizer=_optimizer(training),
            loss=smoothed if training.label_smoothing else "categorical_crossentropy",
            metrics=["accuracy"],
        )
        # loss, metrics and optimizer make variables on first use, which must not be while tracing
        some = ops.one_hot([0], network.output.shape[-1])
        network.compute_loss(y=some, y_pred=some)
        network.compute_metrics(None, some, some)
        network.optimizer.build(network.trainable_variables)
        network.reset_metrics()

    def reset(self) -> None:
        """Resets the running loss and accuracy; takes over the network's learning rate."""
        self.network.reset_metrics()

    def logs(self) -> dict[str, float]:
        """Returns running ``loss`` and ``accuracy`` since :meth:`reset`."""
        return {k: float(v) for k, v in self.network.get_metrics_result().items()}

    def train(self, batches: list[Batch], step: int) -> None:
        """Makes one optimizer step for each batch.

        Args:
            batches: up to ``per_call`` batches of one size, from :func:`groups`.
            step: the number of the first one in its epoch.
        """
        raise NotImplementedError

    def test(self, batch: Batch, number: int) -> None:
        """Adds one batch, the epoch's ``number``-th of validation, to the running figures."""
        raise NotImplementedError

    def pull(self) -> None:
        """Brings the network's variables up to date with the steps done."""

    def push(self) -> None:
        """Makes the next steps start from the network's variables as they are now."""

    def close(self) -> None:
        """Ends the training; the network stays."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Predicts class probabilities (n, classes) of images, uint8 (n, height, width, channels).

        It uses the network's variables as they are now, in inference mode.
        """
        scaled = images.astype("float32") / np.float32(self._pixel_scale)
        return self.network.predict(scaled, batch_size=EVALUATION_BATCH, verbose=0)


def _optimizer(training: Training) -> Any:
    """The experiment's optimizer of Keras, by default Adam."""
    if not (named := training.optimizer):
        return keras.optimizers.Adam(training.learning_rate)
    kind = signatures.keras_class(keras.optimizers, named.name)
    return kind(learning_rate=training.learning_rate, **named.settings)


class TensorFlowSteps(Steps):
    """Steps of one network, made as :func:`resnet.training.make_steps` says."""

    def __init__(
        self,
        network: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        experiment: Experiment,
    ):
        import tensorflow as tf

        # the same program on the same machine then gives the same bits; it costs 4 % of a step on
        # a CPU
        tf.config.experimental.enable_op_determinism()
        super().__init__(network, experiment)
        # uint8 takes a quarter of float32's memory: all of CIFAR-10 is 154 MB on the device
        pixels = ops.convert_to_tensor(images, "uint8")
        truth = ops.one_hot(labels, network.output.shape[-1])
        apply = functools.partial(augmentation.apply, fill_mode=self._fill_mode)
        compiled = functools.partial(tf.function, reduce_retracing=True, autograph=False)

        def batch(positions: Any, transforms: Any) -> tuple[Any, Any]:
            return look_up(pixels, truth, positions, transforms, self._pixel_scale, apply)

        def many(positions: Any, transforms: Any) -> None:
            def one(i: Any) -> Any:
                data = batch(positions[i], None if transforms is None else transforms[i])
                with tf.control_dependencies([*network.train_step(data).values()]):
                    return i + 1

            # one after the other, as the steps of single calls
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
    apply: Callable[[Any, Any], Any] = augmentation.apply,
) -> tuple[Any, Any]:
    """Makes a batch from positions and transforms.

    Returns:
        Tensors (batch, height, width, channels) in [0, 1] and (batch, classes).
    """
    x = ops.cast(ops.take(images, positions, axis=0), "float32") / scale
    if transforms is not None:
        x = apply(x, transforms)
    return x, ops.take(labels, positions, axis=0)


def groups(batches: list[Batch], size: int, start: int = 0) -> Iterator[tuple[int, list[Batch]]]:
    """Groups an epoch's batches, from number ``start`` on, into calls of :meth:`Steps.train`.

    A call ends at each multiple of ``size``, and its batches have one length.

    Yields:
        The number of a call's first batch, and its batches.
    """
    numbered = list(enumerate(batches))[start:]
    for _, call in groupby(numbered, key=lambda item: (item[0] // size, len(item[1][0]))):
        first, *others = call
        yield first[0], [first[1], *(batch for _, batch in others)]
