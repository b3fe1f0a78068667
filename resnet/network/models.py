"""The architectures that come with the project, made of Keras's own layers.

An architecture is a public function that takes ``input_shape`` and ``classes`` and returns a model.
The function's other parameters are the settings of an experiment's ``model``.
:mod:`resnet.study.signatures` reads them from this file. The residual network follows He et al.,
"Deep Residual Learning for Image Recognition" (2015). The VGG-like network follows Simonyan and
Zisserman (2014). Layers are named by stage, block and role: ``stage3_block1_shortcut_conv``.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import keras
from keras import layers
from pydantic import Field

from resnet import UserError

Blocks = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Momentum = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


def identity_block(x: Any, filters: Sequence[int], name: str, momentum: float = 0.99) -> Any:
    """Builds the study's ``identity_block``, a bottleneck block whose shortcut is the identity.

    ``x`` is (batch, height, width, F3). ``filters`` are F1, F2 and F3, the numbers of filters of
    the 1x1, 3x3 and 1x1 convolutions.
    """
    return _bottleneck(x, x, filters, 1, name, momentum)


def convolutional_block(x: Any, filters: Sequence[int], name: str, momentum: float = 0.99) -> Any:
    """Builds the study's ``convolutional_block``, a bottleneck block that halves height and width.

    The first 1x1 convolution and the shortcut's convolution have stride 2. The output is (batch,
    ceil(height / 2), ceil(width / 2), F3).
    """
    shortcut = layers.Conv2D(
        filters[2], 1, strides=2, padding="same", name=f"{name}_shortcut_conv"
    )(x)
    shortcut = layers.BatchNormalization(momentum=momentum, name=f"{name}_shortcut_bn")(shortcut)
    return _bottleneck(x, shortcut, filters, 2, name, momentum)


def _bottleneck(
    x: Any, shortcut: Any, filters: Sequence[int], strides: int, name: str, momentum: float
) -> Any:
    for i, f, kernel, stride in zip((1, 2, 3), filters, (1, 3, 1), (strides, 1, 1), strict=True):
        x = layers.Conv2D(f, kernel, strides=stride, padding="same", name=f"{name}_conv{i}")(x)
        x = layers.BatchNormalization(momentum=momentum, name=f"{name}_bn{i}")(x)
        if i < 3:
            x = layers.Activation("relu", name=f"{name}_relu{i}")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.Activation("relu", name=f"{name}_relu")(x)


def residual(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    identity_blocks: Annotated[list[Blocks], Field(min_length=3, max_length=3)] = (5, 3, 1),  # type: ignore[assignment]
    dropout: Fraction = 0.0,
    batch_norm_momentum: Momentum = 0.99,
) -> keras.Model:
    """Builds the study's ``ResidualNetwork``. Rungs 1 and 2 use the default settings.

    Args:
        input_shape: height, width and channels of an image with values in [0, 1].
        classes: number of classes.
        identity_blocks: numbers of identity blocks in stages 2, 3 and 4.
        dropout: share of the last layer's inputs that dropout sets to zero; 0 means no dropout.
        batch_norm_momentum: ``momentum`` of Keras's ``BatchNormalization`` layers.

    Returns:
        Model that maps images (batch, *input_shape) to probabilities (batch, classes).
    """
    # Comments give the shapes for the study's 32x32 images, without the batch axis.
    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(64, 3, padding="same", name="stage1_conv")(image)  # (32, 32, 64)
    x = layers.BatchNormalization(momentum=batch_norm_momentum, name="stage1_bn")(x)
    x = layers.Activation("relu", name="stage1_relu")(x)

    widths = ((16, 16, 64), (32, 32, 128), (64, 64, 256))
    for stage, filters, count in zip((2, 3, 4), widths, identity_blocks, strict=True):
        # The stages' outputs are (32, 32, 64), (16, 16, 128) and (8, 8, 256).
        first = 1
        if stage > 2:
            x = convolutional_block(x, filters, f"stage{stage}_block1", batch_norm_momentum)
            first = 2
        for block in range(first, first + count):
            x = identity_block(x, filters, f"stage{stage}_block{block}", batch_norm_momentum)

    x = layers.AveragePooling2D(2, padding="same", name="head_pool")(x)  # (4, 4, 256)
    x = layers.Flatten(name="head_flatten")(x)  # (4096,)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="head_classifier")(x)
    return keras.Model(image, probabilities, name="residual_network")


def vgg(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    filters: Annotated[list[Count], Field(min_length=1, max_length=5)] = (32, 64, 128),  # type: ignore[assignment]
    convolutions: Count = 3,
    dense: Annotated[list[Count], Field(max_length=5)] = (128, 128),  # type: ignore[assignment]
    dropout: Fraction = 0.2,
    batch_norm_momentum: Momentum = 0.99,
) -> keras.Model:
    """Builds the VGG-like network of the study's section 4, as far as the study describes it.

    Args:
        input_shape: height, width and channels of an image with values in [0, 1].
        classes: number of classes.
        filters: numbers of filters, one per group of 3x3 convolutions. Max pooling ends each group.
        convolutions: convolutions per group, each followed by batch normalisation and ReLU.
        dense: number of units in each hidden fully connected layer.
        dropout: share of the last layer's inputs that dropout sets to zero; 0 means no dropout.
        batch_norm_momentum: ``momentum`` of Keras's ``BatchNormalization`` layers.

    Returns:
        Model that maps images (batch, *input_shape) to probabilities (batch, classes).

    Raises:
        UserError: the images are too small for this number of max poolings.
    """
    if min(input_shape[:2]) < 2 ** len(filters):
        size, groups = " x ".join(map(str, input_shape[:2])), len(filters)
        raise UserError(f"model.filters: {groups} groups are too many for images of {size} pixels")
    image = x = keras.Input(input_shape, name="image")
    for g, f in enumerate(filters, 1):
        for c in range(1, convolutions + 1):
            x = layers.Conv2D(f, 3, padding="same", name=f"group{g}_conv{c}")(x)
            x = layers.BatchNormalization(momentum=batch_norm_momentum, name=f"group{g}_bn{c}")(x)
            x = layers.Activation("relu", name=f"group{g}_relu{c}")(x)
        x = layers.MaxPooling2D(2, name=f"group{g}_pool")(x)
    x = layers.Flatten(name="head_flatten")(x)
    for d, units in enumerate(dense, 1):
        x = layers.Dense(units, activation="relu", name=f"head_dense{d}")(x)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    probabilities = layers.Dense(classes, activation="softmax", name="head_classifier")(x)
    return keras.Model(image, probabilities, name="vgg_like")
