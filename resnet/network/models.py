"""The study's networks, block by block, as Keras functional code.

Residual learning: He et al., "Deep Residual Learning for Image Recognition" (2015); the
VGG-like network after Simonyan and Zisserman (2014). Layer names tell stage, block and role:
``stage3_block1_shortcut_conv``.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras.layers import (
    Activation,
    Add,
    AveragePooling2D,
    Dense,
    Dropout,
    Flatten,
    Input,
)

from resnet import UserError
from resnet.network.layers import BatchNormalization, Conv2D, MaxPooling2D
from resnet.study import VGG, Residual


def identity_block(x: Any, filters: Sequence[int], name: str, momentum: float = 0.99) -> Any:
    """Builds a bottleneck block whose shortcut is the identity (the study's ``identity_block``).

    Args:
        x: tensor (batch, height, width, F3).
        filters: F1, F2, F3 of the 1x1, 3x3 and 1x1 convolutions.
        name: prefix of the layers' names.
        momentum: of the moving averages of batch normalisation.

    Returns:
        Tensor of the shape of ``x``.
    """
    return _bottleneck(x, x, filters, 1, name, momentum)


def convolutional_block(x: Any, filters: Sequence[int], name: str, momentum: float = 0.99) -> Any:
    """Builds a bottleneck block that halves height and width (its ``convolutional_block``).

    The first 1x1 convolution and the shortcut's have stride 2.

    Args:
        x: tensor (batch, height, width, channels).
        filters: F1, F2, F3 of the main path; the shortcut has F3.
        name: prefix of the layers' names.
        momentum: of the moving averages of batch normalisation.

    Returns:
        Tensor (batch, ceil(height / 2), ceil(width / 2), F3).
    """
    shortcut = Conv2D(filters[2], 1, strides=2, padding="same", name=f"{name}_shortcut_conv")(x)
    shortcut = BatchNormalization(momentum=momentum, name=f"{name}_shortcut_bn")(shortcut)
    return _bottleneck(x, shortcut, filters, 2, name, momentum)


def _bottleneck(
    x: Any, shortcut: Any, filters: Sequence[int], strides: int, name: str, momentum: float
) -> Any:
    for i, (f, kernel, stride) in enumerate(
        zip(filters, (1, 3, 1), (strides, 1, 1), strict=True), 1
    ):
        x = Conv2D(f, kernel, strides=stride, padding="same", name=f"{name}_conv{i}")(x)
        x = BatchNormalization(momentum=momentum, name=f"{name}_bn{i}")(x)
        if i < 3:
            x = Activation("relu", name=f"{name}_relu{i}")(x)
    x = Add(name=f"{name}_add")([x, shortcut])
    return Activation("relu", name=f"{name}_relu")(x)


def residual_network(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    identity_blocks: Sequence[int] = (5, 3, 1),
    dropout: float = 0.0,
    batch_norm_momentum: float = 0.99,
) -> keras.Model:
    """Builds the study's ``ResidualNetwork``; the defaults are the template's of rungs 1 and 2.

    Args:
        input_shape: height, width and channels of an image with values in [0, 1].
        classes: number of classes.
        identity_blocks: identity blocks of stages 2, 3 and 4.
        dropout: rate before the classifier; 0 leaves the layer out.
        batch_norm_momentum: of the moving averages of batch normalisation.

    Returns:
        Model from images (batch, *input_shape) to probabilities (batch, classes).
    """
    # shapes below are of the study's 32x32 images, without the batch
    image = Input(input_shape, name="image")
    x = Conv2D(64, 3, padding="same", name="stage1_conv")(image)  # (32, 32, 64)
    x = BatchNormalization(momentum=batch_norm_momentum, name="stage1_bn")(x)
    x = Activation("relu", name="stage1_relu")(x)

    stages = zip(
        (2, 3, 4),
        ((16, 16, 64), (32, 32, 128), (64, 64, 256)),
        identity_blocks,
        strict=True,
    )
    for stage, filters, count in stages:
        # stage 2 stays (32, 32, 64); stages 3 and 4 become (16, 16, 128) and (8, 8, 256)
        block = 1
        if stage > 2:
            x = convolutional_block(x, filters, f"stage{stage}_block1", batch_norm_momentum)
            block = 2
        for b in range(block, block + count):
            x = identity_block(x, filters, f"stage{stage}_block{b}", batch_norm_momentum)

    x = AveragePooling2D(2, padding="same", name="head_pool")(x)  # (4, 4, 256)
    x = Flatten(name="head_flatten")(x)  # (4096,)
    if dropout:
        x = Dropout(dropout, name="head_dropout")(x)
    probabilities = Dense(classes, activation="softmax", name="head_classifier")(x)
    return keras.Model(image, probabilities, name="residual_network")


def vgg_like(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    filters: Sequence[int] = (32, 64, 128),
    convolutions: int = 3,
    dense: Sequence[int] = (128, 128),
    dropout: float = 0.2,
    batch_norm_momentum: float = 0.99,
) -> keras.Model:
    """Builds the VGG-like network the study compares with (section 4, only sketched there).

    Args:
        input_shape: height, width and channels of an image with values in [0, 1].
        classes: number of classes.
        filters: of the 3x3 convolutions, one entry a group; each group ends in max pooling.
        convolutions: in a group, each with batch normalisation and ReLU.
        dense: units of the fully connected layers.
        dropout: rate before the classifier; 0 leaves the layer out.
        batch_norm_momentum: of the moving averages of batch normalisation.

    Returns:
        Model from images (batch, *input_shape) to probabilities (batch, classes).
    """
    image = x = Input(input_shape, name="image")
    for g, f in enumerate(filters, 1):
        for c in range(1, convolutions + 1):
            x = Conv2D(f, 3, padding="same", name=f"group{g}_conv{c}")(x)
            x = BatchNormalization(momentum=batch_norm_momentum, name=f"group{g}_bn{c}")(x)
            x = Activation("relu", name=f"group{g}_relu{c}")(x)
        x = MaxPooling2D(2, name=f"group{g}_pool")(x)
    x = Flatten(name="head_flatten")(x)
    for d, units in enumerate(dense, 1):
        x = Dense(units, activation="relu", name=f"head_dense{d}")(x)
    if dropout:
        x = Dropout(dropout, name="head_dropout")(x)
    probabilities = Dense(classes, activation="softmax", name="head_classifier")(x)
    return keras.Model(image, probabilities, name="vgg_like")


def build(
    model: Residual | VGG,
    input_shape: tuple[int, int, int],
    classes: int,
    seed: int,
) -> keras.Model:
    """Builds the network an experiment describes, its weights drawn from ``seed``.

    Args:
        model: the experiment's ``model`` section.
        input_shape: height, width and channels.
        classes: number of classes.
        seed: any non-negative integer.

    Returns:
        The network, uncompiled. Equal seeds give equal weights on every backend.

    Raises:
        UserError: the images are too small for the VGG-like network's poolings.
    """
    make = vgg_like if model.architecture == "vgg" else residual_network
    if model.architecture == "vgg" and min(input_shape[:2]) < 2 ** len(model.filters):
        size = " x ".join(map(str, input_shape[:2]))
        count = len(model.filters)
        raise UserError(f"model.filters: of images of {size} {count} poolings leave none")
    network = make(input_shape, classes, **model.model_dump(exclude={"architecture"}))
    _initialize(network, seed)
    return network


def _initialize(network: keras.Model, seed: int) -> None:
    """Draws kernels (Keras's default, Glorot uniform) and dropout states from ``seed``.

    Each layer draws by its name: a rung that adds a layer starts all others from the same weights.
    """
    # NumPy's draws and not Keras's initialisers, whose bits are other ones on each backend
    for layer in network.layers:
        generator = np.random.default_rng([seed, *layer.name.encode()])
        if isinstance(layer, keras.layers.Conv2D | Dense):
            *window, fan_in, fan_out = layer.kernel.shape
            limit = np.sqrt(6 / (np.prod(window) * (fan_in + fan_out)))
            layer.kernel.assign(generator.uniform(-limit, limit, layer.kernel.shape))
        elif isinstance(layer, Dropout):
            layer.seed_generator.state.assign(generator.integers(0, 2**31, 2))
        elif layer.variables and not isinstance(layer, keras.layers.BatchNormalization):
            raise ValueError(f"{layer.name}: nothing here draws a {type(layer).__name__}'s weights")


def stock(network: keras.Model) -> keras.Model:
    """Rebuilds a network in Keras's own layers, weights included, to be saved and shared.

    Args:
        network: a model of this module.

    Returns:
        A copy that loads in plain Keras without this project.
    """

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        # the layers of this project have the stock ones' names, settings and weights
        return getattr(keras.layers, type(layer).__name__).from_config(layer.get_config())

    copy = keras.models.clone_model(network, clone_function=replace)
    copy.set_weights(network.get_weights())
    return copy


def served(network: keras.Model, pixel_scale: float) -> keras.Model:
    """Puts :func:`stock` behind a rescaling, for whoever has images as they come.

    Args:
        network: a model of this module.
        pixel_scale: pixels are divided by it, within the model.

    Returns:
        Model from uint8 images (batch, height, width, channels) to probabilities (batch, classes).
    """
    image = Input(network.input_shape[1:], dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / pixel_scale, name="rescaling")(image)
    return keras.Model(image, stock(network)(scaled), name="served")


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of the convolutions and dense layers for one image (biases not counted)."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, Dense):
            total += int(np.prod(layer.kernel.shape))
        elif layer.weights and not isinstance(layer, keras.layers.BatchNormalization):
            raise ValueError(f"{layer.name}: nothing here counts a {type(layer).__name__}")
    return total
