"""Faster versions of three Keras layers, with the same names and mathematics."""

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
    """In this context, JAX traces layers as matrix products and as operations that XLA can fuse.

    ``jax.vmap`` turns the lanes' products into one batched product. It turns convolutions into
    grouped convolutions, whose gradients are slow (jax issue 13800). cuDNN's convolutions also
    convert the memory layout twice. On a CPU, convolutions are faster than products.
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
"""Pixels per matrix product when :func:`_product` computes a kernel's gradient."""


@ops.custom_gradient
def _product(pixels: Any, kernel: Any, bias: Any) -> Any:
    """Multiplies (pixels, channels) by (channels, filters) and adds a bias, whose gradient is 0."""

    def gradient(upstream: Any) -> tuple[Any, ...]:
        # The kernel's gradient reduces a batch's 32,768 pixels to about a thousand numbers. A
        # single product would keep only a few of a GPU's hundred processors busy.
        parts = len(pixels) // PIXELS if len(pixels) % PIXELS == 0 else 1
        x, y = (ops.reshape(v, (parts, -1, v.shape[-1])) for v in (pixels, upstream))
        of_kernel = ops.sum(ops.einsum("npc,npf->ncf", x, y), axis=0)
        return ops.einsum("pf,cf->pc", upstream, kernel), of_kernel, ops.zeros_like(bias)

    return ops.matmul(pixels, kernel) + bias, gradient


class Conv2D(keras.layers.Conv2D):
    """``keras.layers.Conv2D`` for convolutions directly before batch normalisation.

    Batch normalisation subtracts the bias again, so the bias's gradient is zero in exact
    arithmetic. On a CPU, the stock layer spends a fifth of a training step on this gradient.
    Adam then turns the gradient's rounding errors into steps of full size. This layer sets the
    gradient to zero (398 images/s instead of 336, see docs/log.md).

    A 1x1 convolution without strides runs as a matrix product, whose gradients are faster on a CPU
    than a convolution's (436 images/s instead of 403). With strides, slicing inputs would cost more
    than the product saves. Within :func:`products`, each convolution multiplies windows by kernels.

    Input: float (batch, height, width, channels).
    """

    def call(self, inputs: Any) -> Any:
        # A custom gradient accepts tensors, but not variables.
        bias = ops.copy(self.bias) if self.use_bias else None
        batched = _PRODUCTS.get()
        if batched:
            inputs = self._patches(inputs)
        elif self.kernel_size != (1, 1) or self.strides != (1, 1):
            return _biased(self.convolution_op(inputs, self.kernel), bias)
        *places, channels = ops.shape(inputs)
        pixels = ops.reshape(inputs, (-1, channels))  # (batch * height * width, channels)
        kernel = ops.reshape(self.kernel, (channels, self.filters))  # one column per filter
        if batched:
            outputs = _product(pixels, kernel, ops.zeros(self.filters) if bias is None else bias)
        else:
            outputs = _biased(ops.matmul(pixels, kernel), bias)
        return ops.reshape(outputs, (*places, self.filters))

    def _patches(self, inputs: Any) -> Any:
        """Returns each output pixel's window, (batch, height, width, window pixels * channels)."""
        pads, views = [], []
        for size, window, stride in zip(
            inputs.shape[1:3], self.kernel_size, self.strides, strict=True
        ):
            last = (math.ceil(size / stride) - 1) * stride  # start of the last window
            missing = max(last + window - size, 0)
            pads.append((missing // 2, missing - missing // 2))  # equals padding="same"
            views.append([slice(first, first + last + 1, stride) for first in range(window)])
        padded = ops.pad(inputs, ((0, 0), *pads, (0, 0)))
        return ops.concatenate([padded[:, *view] for view in itertools.product(*views)], axis=-1)


@ops.custom_gradient
def _normalize(inputs: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    """Returns batch-normalised inputs, and the batch's mean and variance, each (channels,).

    The variance is accurate to 2 % if a channel's mean is at most 100 times its standard deviation.
    """
    # Memory limits the speed of a step. So one pass over the inputs computes mean and variance. The
    # stock layer needs two passes, and its gradient has a dozen operations.
    mean = ops.mean(inputs, axis=(0, 1, 2))
    variance = ops.maximum(ops.mean(inputs * inputs, axis=(0, 1, 2)) - mean * mean, 0.0)
    inverse = ops.rsqrt(variance + epsilon)
    scale = gamma * inverse

    def gradient(upstream: Any) -> tuple[Any, ...]:
        upstream, *_ = upstream  # the gradients of the returned mean and variance are ignored
        normalized = (inputs - mean) * inverse
        of_beta = ops.sum(upstream, axis=(0, 1, 2))
        of_gamma = ops.sum(upstream * normalized, axis=(0, 1, 2))
        count = math.prod(inputs.shape[:3])
        of_inputs = scale * (upstream - (of_beta + normalized * of_gamma) / count)
        return of_inputs, of_gamma, of_beta, ops.zeros_like(epsilon)

    return ((inputs - mean) * scale + beta, mean, variance), gradient


class BatchNormalization(keras.layers.BatchNormalization):
    """``keras.layers.BatchNormalization`` of channels, with fewer passes over memory in training.

    Outputs, gradients and moving statistics equal the stock layer's within float32 rounding. The
    moving average gets the biased variance, as in Keras. TensorFlow uses a fused kernel. Within
    :func:`products`, JAX uses :func:`_normalize`. All other cases run the stock code.

    Input and output: float32 (batch, height, width, channels).
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
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
    """Computes :func:`_normalize` in one TensorFlow kernel. Keras needs a dozen kernels."""
    import tensorflow as tf  # not installed in an environment for JAX

    # oneDNN fuses this kernel with the ReLU that follows.
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # For the variance of n values, the kernel divides by n - 1, and Keras divides by n.
    count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
    return outputs, mean, variance * ((count - 1) / count)


class MaxPooling2D(keras.layers.MaxPooling2D):
    """``keras.layers.MaxPooling2D`` of 2x2 windows. Uses ``maximum`` within :func:`products`.

    Exact resume needs deterministic mode. In this mode, XLA cannot compile the stock layer's
    gradient for a GPU (flax issue 4233). If several pixels of a window have the largest value, they
    share the gradient. In the stock layer, the first of these pixels gets the whole gradient.

    Input: float (batch, height, width, channels). Odd sizes lose their last row or column.
    """

    def call(self, inputs: Any) -> Any:
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


def fits(layer: keras.layers.Layer) -> bool:
    """Checks whether a layer of ``FASTER`` can replace this stock layer with equal results."""
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
