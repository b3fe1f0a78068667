"""Keras's layers with the same mathematics in faster code, under the same names."""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from keras import ops

from resnet.network.backend import keras

_PRODUCTS = ContextVar("products", default=False)


@contextlib.contextmanager
def products(wanted: bool = True) -> Iterator[None]:
    """Within it, JAX traces layers as matrix products and operations that XLA fuses.

    ``jax.vmap`` turns one product per lane into one batched product, but convolutions into grouped
    ones, whose gradients are slow (jax issue 13800). A product also keeps the order of the pixels,
    which cuDNN's convolutions convert twice. On a CPU convolutions are faster.
    """
    token = _PRODUCTS.set(wanted)
    try:
        yield
    finally:
        _PRODUCTS.reset(token)


def _biased(outputs: Any, bias: Any) -> Any:
    return outputs if bias is None else _add_inert_bias(outputs, bias)


@ops.custom_gradient
def _add_inert_bias(outputs: Any, bias: Any) -> Any:
    def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any]:
        upstream = arguments[0] if upstream is None else upstream
        return upstream, ops.zeros_like(bias)

    return ops.add(outputs, bias), gradient


PIXELS = 1024
"""Pixels per product of a kernel's gradient, within :func:`products`."""


@ops.custom_gradient
def _product(pixels: Any, kernel: Any, bias: Any) -> Any:
    """(pixels, channels) times (channels, filters), and an inert bias."""

    def gradient(upstream: Any) -> tuple[Any, ...]:
        # The kernel's gradient sums 32,768 pixels of a batch up into some thousand numbers: as one
        # product it would keep a few of a card's hundred processors busy.
        parts = len(pixels) // PIXELS if len(pixels) % PIXELS == 0 else 1
        x, y = (ops.reshape(v, (parts, -1, v.shape[-1])) for v in (pixels, upstream))
        of_kernel = ops.sum(ops.einsum("npc,npf->ncf", x, y), axis=0)
        return ops.einsum("pf,cf->pc", upstream, kernel), of_kernel, ops.zeros_like(bias)

    return ops.matmul(pixels, kernel) + bias, gradient


class Conv2D(keras.layers.Conv2D):
    """``keras.layers.Conv2D`` for a convolution that batch normalisation follows directly.

    Batch normalisation subtracts what the bias adds, so the bias's gradient is zero in exact
    arithmetic. The stock layer computes it in a fifth of a training step on a CPU, and Adam makes
    steps of full size out of its rounding. Here it is zero (398 images/s instead of 336, see
    docs/log.md).

    A 1x1 convolution without strides is computed as a matrix product, whose gradients are faster on
    a CPU (436 images/s instead of 403). With strides the slice before it would cost more. Within
    :func:`products` every convolution is a product of patches: the pixels of each window.

    Input: float (batch, height, width, channels).
    """

    def call(self, inputs: Any) -> Any:
        """Convolves the inputs and adds the bias."""
        # a tensor, since a variable could not go through a custom gradient
        bias = ops.copy(self.bias) if self.use_bias else None
        batched = _PRODUCTS.get()
        if batched:
            inputs = self._patches(inputs)
        elif self.kernel_size != (1, 1) or self.strides != (1, 1):
            return _biased(self.convolution_op(inputs, self.kernel), bias)
        *places, channels = ops.shape(inputs)
        pixels = ops.reshape(inputs, (-1, channels))  # (batch * height * width, channels)
        kernel = ops.reshape(self.kernel, (channels, self.filters))  # from (rows, columns, ...)
        if batched:
            outputs = _product(pixels, kernel, ops.zeros(self.filters) if bias is None else bias)
        else:
            outputs = _biased(ops.matmul(pixels, kernel), bias)
        return ops.reshape(outputs, (*places, self.filters))

    def _patches(self, inputs: Any) -> Any:
        """The window of each output pixel: (batch, height, width, window's pixels * channels)."""
        pads, views = [], []
        for size, window, stride in zip(
            inputs.shape[1:3], self.kernel_size, self.strides, strict=True
        ):
            last = (math.ceil(size / stride) - 1) * stride  # where the last window begins
            missing = max(last + window - size, 0)
            pads.append((missing // 2, missing - missing // 2))  # as padding="same" has it
            views.append([slice(first, first + last + 1, stride) for first in range(window)])
        padded = ops.pad(inputs, ((0, 0), *pads, (0, 0)))
        return ops.concatenate([padded[:, *view] for view in itertools.product(*views)], axis=-1)


@ops.custom_gradient
def _normalize(inputs: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    """``inputs`` normalised by their batch, and its mean and variance, (channels,) each.

    The variance is right to 2 % where a channel's mean is at most 100 times its deviation.
    """
    # One pass gives both sums, forward and backward, because memory limits a step. The stock
    # layer's variance needs the mean first, and its gradient is that of a dozen operations.
    mean = ops.mean(inputs, axis=(0, 1, 2))
    variance = ops.maximum(ops.mean(inputs * inputs, axis=(0, 1, 2)) - mean * mean, 0.0)
    inverse = ops.rsqrt(variance + epsilon)
    scale = gamma * inverse

    def gradient(upstream: Any) -> tuple[Any, ...]:
        upstream, *_ = upstream  # the statistics have none
        normalized = (inputs - mean) * inverse
        of_beta = ops.sum(upstream, axis=(0, 1, 2))
        of_gamma = ops.sum(upstream * normalized, axis=(0, 1, 2))
        count = math.prod(inputs.shape[:3])
        of_inputs = scale * (upstream - (of_beta + normalized * of_gamma) / count)
        return of_inputs, of_gamma, of_beta, ops.zeros_like(epsilon)

    return ((inputs - mean) * scale + beta, mean, variance), gradient


class BatchNormalization(keras.layers.BatchNormalization):
    """``keras.layers.BatchNormalization`` of channels, trained in as few passes as possible.

    Outputs, gradients and moving statistics equal the stock layer's within float32 rounding; the
    biased variance enters the moving average, as in Keras. TensorFlow uses a fused kernel, JAX its
    own gradient within :func:`products`. Inference and other precisions run the stock code.

    Input and output: float32 (batch, height, width, channels).
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises the inputs by the batch (training) or the moving statistics."""
        fused = keras.backend.backend() == "tensorflow" and self.compute_dtype == "float32"
        if not (training and self.trainable and (fused or _PRODUCTS.get())):
            return super().call(inputs, training=training, mask=mask)
        normalize = _fused if fused else _normalize
        gamma, beta = ops.copy(self.gamma), ops.copy(self.beta)
        outputs, mean, variance = normalize(inputs, gamma, beta, self.epsilon)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1.0 - self.momentum))
        return outputs


def _fused(inputs: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """:func:`_normalize` by one kernel of TensorFlow, where Keras composes a dozen."""
    import tensorflow as tf  # only where TensorFlow is the backend

    # with oneDNN the ReLU that follows is part of it
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=gamma,
        offset=beta,
        mean=[],
        variance=[],
        epsilon=epsilon,
        is_training=True,
    )
    # the kernel returns n / (n - 1) times the variance that Keras averages
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
    return outputs, mean, variance * ((count - 1) / count)


class MaxPooling2D(keras.layers.MaxPooling2D):
    """``keras.layers.MaxPooling2D``, 2x2 without overlap: within :func:`products` a maximum.

    XLA's gradient of the stock layer (a select and scatter) does not compile for a GPU with the
    determinism that exact resume needs (flax issue 4233). If the largest of four values are equal,
    they share the gradient here; in the stock layer the first one has it.

    Input: float (batch, height, width, channels); an odd last row or column is left out.
    """

    def call(self, inputs: Any) -> Any:
        """Takes the largest of each 2x2 window."""
        if not _PRODUCTS.get():
            return super().call(inputs)
        rows, columns = (size // 2 * 2 for size in inputs.shape[1:3])
        four = [inputs[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
        return functools.reduce(ops.maximum, four)


FASTER: dict[type, type] = {
    keras.layers.Conv2D: Conv2D,
    keras.layers.BatchNormalization: BatchNormalization,
    keras.layers.MaxPooling2D: MaxPooling2D,
}
"""Maps each Keras layer to this project's replacement."""


def fits(layer: keras.layers.Layer) -> bool:
    """Checks whether this project's layer equals a stock layer of ``FASTER`` in its network."""
    if len(layer._inbound_nodes) != 1 or layer.compute_dtype not in ("float32", "float64"):
        return False
    plain = len(layer.input.shape) == 4 and getattr(layer, "data_format", "") != "channels_first"
    if isinstance(layer, keras.layers.Conv2D):
        after = [node.operation for node in layer._outbound_nodes]
        normalized = len(after) == 1 and type(after[0]) is keras.layers.BatchNormalization
        plain &= layer.activation is keras.activations.linear and layer.padding == "same"
        plain &= layer.groups == 1 and layer.dilation_rate == (1, 1)
        return plain and normalized and after[0].axis in (-1, 3)
    if isinstance(layer, keras.layers.MaxPooling2D):
        return plain and layer.pool_size == layer.strides == (2, 2) and layer.padding == "valid"
    plain &= layer.center and layer.scale and not layer.synchronized
    return plain and layer.axis in (-1, 3)
