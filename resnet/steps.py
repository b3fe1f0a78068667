"""Compiled training and evaluation steps over images that stay where the network is.

The mathematics is Keras's own ``train_step`` and ``test_step``; here images are picked by index,
scaled and augmented inside the compiled program.
"""

import keras
import numpy as np

from resnet import augment

EVALUATION_BATCH = 256  # larger than the training batch: inference does not depend on it


class Steps:
    """One network's compiled steps over one set of images.

    Args:
        network: built; compiled here with Adam and the categorical cross-entropy.
        images: uint8 (n, height, width, channels), 0..255.
        labels: integer (n,) class indices.
        pixel_scale: pixels are divided by it.
        learning_rate: of Adam.
    """

    def __init__(
        self,
        network: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        pixel_scale: float,
        learning_rate: float,
    ):
        import tensorflow as tf

        # the same program on the same machine then gives the same bits
        tf.config.experimental.enable_op_determinism()
        self.network = network
        network.compile(
            optimizer=keras.optimizers.Adam(learning_rate),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        )
        images = tf.constant(images)
        labels = tf.one_hot(labels, network.output.shape[-1])

        def batch(index, transforms):
            x = tf.cast(tf.gather(images, index), "float32") / pixel_scale
            if transforms is not None:
                x = augment.apply(x, transforms)
            return x, tf.gather(labels, index)

        # metrics and optimizer make their variables on first use, which must not be while tracing
        network.test_step(batch(np.zeros(1, "int32"), None))
        network.optimizer.build(network.trainable_variables)
        self._train = tf.function(
            lambda i, t: network.train_step(batch(i, t)), reduce_retracing=True
        )
        self._test = tf.function(lambda i, t: network.test_step(batch(i, t)), reduce_retracing=True)
        self.reset()

    def reset(self) -> None:
        """Starts the running loss and accuracy anew."""
        self.network.reset_metrics()

    def logs(self) -> dict[str, float]:
        """Running ``loss`` and ``accuracy`` since :meth:`reset`."""
        return {k: float(v) for k, v in self.network.get_metrics_result().items()}

    def train(self, indices: np.ndarray, transforms: np.ndarray | None) -> None:
        """One optimizer step.

        Args:
            indices: int32 (batch,), positions in the images.
            transforms: float32 (batch, 8) from :func:`resnet.augment.projective`, or None.
        """
        self._train(indices, transforms)

    def test(self, indices: np.ndarray, transforms: np.ndarray | None) -> None:
        """Adds one batch to the running loss and accuracy; arguments as in :meth:`train`."""
        self._test(indices, transforms)


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
