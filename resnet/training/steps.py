"""Compiled training and evaluation steps over images that stay where the network is.

The mathematics is Keras's own ``train_step`` and ``test_step``; here images are picked by index,
scaled and augmented inside the compiled program, so that only positions and transforms travel.
TensorFlow runs a step of one network a call; JAX many, of many networks (see
:mod:`resnet.training.program`).
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
"""Multiply-adds of a batch below which TensorFlow takes that many steps a call.

A call takes some 0.4 ms, a step of the study's networks 50 ms and more, of a dense network 0.1 ms.
"""

Batch = tuple[np.ndarray, np.ndarray | None]
"""int32 (n,) positions in the images; float32 (n, 6), (n, 8) or (n, 14) transforms, or None."""


class Steps:
    """One network's compiled steps over one set of images.

    Args:
        network: built; compiled here with the experiment's optimizer and loss.
        experiment: says what pixels are divided by, and how the optimizer is set.
    """

    lanes = 1
    """How many networks the compiled program is for."""
    per_call = 1
    """How many steps a call of :meth:`train` should be given."""

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
        """Starts the running loss and accuracy anew, and takes on the network's learning rate."""
        self.network.reset_metrics()

    def logs(self) -> dict[str, float]:
        """Returns running ``loss`` and ``accuracy`` since :meth:`reset`."""
        return {k: float(v) for k, v in self.network.get_metrics_result().items()}

    def train(self, batches: list[Batch], step: int) -> None:
        """Makes one optimizer step for each batch; all are of one size.

        Args:
            batches: at most ``per_call``, from one of its multiples on.
            step: the first one's number in its epoch.
        """
        raise NotImplementedError

    def test(self, batch: Batch, number: int) -> None:
        """Adds one batch, the epoch's ``number``-th to validate, to the running figures."""
        raise NotImplementedError

    def pull(self) -> None:
        """Brings the network's variables up to date with the steps done."""

    def push(self) -> None:
        """Makes the next steps start from the network's variables as they are now."""

    def close(self) -> None:
        """Ends the training; the network stays."""

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities in inference mode, by the network's variables as they are now.

        Args:
            images: uint8 (n, height, width, channels), 0..255.

        Returns:
            float32 (n, classes).
        """
        return probabilities(self.network, images, self._pixel_scale)


def _optimizer(training: Training) -> Any:
    """Keras's optimizer of that name; Adam if none is named."""
    if not (named := training.optimizer):
        return keras.optimizers.Adam(training.learning_rate)
    kind = signatures.keras_class(keras.optimizers, named.name)
    return kind(learning_rate=training.learning_rate, **named.settings)


class TensorFlowSteps(Steps):
    """Of one network; a step a call, or of a small network many, for which a call takes longer.

    Args:
        network: built.
        images: uint8 (n, height, width, channels), 0..255.
        labels: integer (n,) class indices.
        experiment: see :class:`Steps`.
    """

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
        pixels, truth = tensors(images, labels, network.output.shape[-1])

        apply = functools.partial(augmentation.apply, fill_mode=self._fill_mode)

        def step(of_network: Callable) -> Callable:
            def run(positions: Any, transforms: Any) -> Any:
                return of_network(
                    look_up(pixels, truth, positions, transforms, self._pixel_scale, apply)
                )

            return tf.function(run, reduce_retracing=True, autograph=False)

        def many(positions: Any, transforms: Any) -> None:
            def one(i: Any) -> Any:
                how = None if transforms is None else transforms[i]
                batch = look_up(pixels, truth, positions[i], how, self._pixel_scale, apply)
                with tf.control_dependencies([*network.train_step(batch).values()]):
                    return i + 1

            # one after the other, as the steps of single calls
            count = positions.shape[0]
            tf.while_loop(lambda i: i < count, one, [tf.constant(0)], parallel_iterations=1)

        self._train, self._test = step(network.train_step), step(network.test_step)
        self._many = tf.function(many, reduce_retracing=True, autograph=False)
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


def tensors(images: np.ndarray, labels: np.ndarray, classes: int) -> tuple[Any, Any]:
    """Images and labels as they stay with the network.

    Args:
        images: uint8 (n, height, width, channels), 0..255.
        labels: integer (n,) class indices.
        classes: how many.

    Returns:
        The same as tensors; the labels (n, classes), one-hot.
    """
    # a quarter of float32's memory: all of CIFAR-10 is 154 MB on the device
    return ops.convert_to_tensor(images, "uint8"), ops.one_hot(labels, classes)


def look_up(
    images: Any,
    labels: Any,
    positions: Any,
    transforms: Any,
    scale: float,
    apply: Callable[[Any, Any], Any] = augmentation.apply,
) -> tuple[Any, Any]:
    """Makes the batch that positions and transforms stand for.

    Args:
        images: uint8 tensor (n, height, width, channels), 0..255.
        labels: tensor (n, classes).
        positions: int32 (batch,).
        transforms: see :data:`Batch`.
        scale: pixels are divided by it.
        apply: applies the transforms.

    Returns:
        Tensors (batch, height, width, channels) in [0, 1] and (batch, classes).
    """
    x = ops.cast(ops.take(images, positions, axis=0), "float32") / scale
    if transforms is not None:
        x = apply(x, transforms)
    return x, ops.take(labels, positions, axis=0)


def groups(batches: list[Batch], size: int, start: int = 0) -> Iterator[tuple[int, list[Batch]]]:
    """Splits an epoch's batches into those of a call.

    Args:
        batches: of the whole epoch.
        size: of a call, which never goes beyond a multiple of it, nor holds batches of two lengths.
        start: the first batch that is wanted.

    Yields:
        The number of the first batch, and the batches.
    """
    numbered = list(enumerate(batches))[start:]
    for _, call in groupby(numbered, key=lambda item: (item[0] // size, len(item[1][0]))):
        first, *others = call
        yield first[0], [first[1], *(batch for _, batch in others)]


def probabilities(network: keras.Model, images: np.ndarray, pixel_scale: float) -> np.ndarray:
    """Class probabilities in inference mode.

    Args:
        network: from images in [0, 1] to probabilities.
        images: uint8 (n, height, width, channels), 0..255.
        pixel_scale: pixels are divided by it.

    Returns:
        float32 (n, classes).
    """
    scaled = images.astype("float32") / np.float32(pixel_scale)
    return network.predict(scaled, batch_size=EVALUATION_BATCH, verbose=0)
