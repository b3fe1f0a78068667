"""The architectures that come with the project, in Keras's own layers.

An architecture is a public function that takes ``input_shape`` and ``classes`` and returns a model.
Its further parameters are the settings of an experiment's ``model``
(:mod:`resnet.study.signatures` reads them). Residual learning: He et al., "Deep Residual Learning
for Image Recognition" (2015); the VGG-like network: Simonyan and Zisserman (2014). Layer names give
stage, block and role: ``stage3_block1_shortcut_conv``.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import keras
from keras.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    MaxPooling2D,
)
from pydantic import Field

from resnet import UserError

Blocks = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Momentum = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


def identity_block(x: Any, filters: Sequence[int], name: str, momentum: float = 0.99) -> Any:
    """Builds a bottleneck block whose shortcut is the identity (the study's ``identity_block``).

    ``x`` is (batch, height, width, F3); ``filters`` are F1, F2, F3 of the 1x1, 3x3 and 1x1
    convolutions.
    """
    return _bottleneck(x, x, filters, 1, name, momentum)


def convolutional_block(x: Any, filters: Sequence[int], name: str, momentum: float = 0.99) -> Any:
    """Builds a bottleneck block that halves height and width (the ``convolutional_block``).

    The first 1x1 convolution and the shortcut's have stride 2. From a tensor (batch, height, width,
    channels) it makes one of (batch, ceil(height / 2), ceil(width / 2), F3).
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


def residual(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    identity_blocks: Annotated[list[Blocks], Field(min_length=3, max_length=3)] = (5, 3, 1),  # type: ignore[assignment]
    dropout: Fraction = 0.0,
    batch_norm_momentum: Momentum = 0.99,
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


def vgg(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    filters: Annotated[list[Count], Field(min_length=1, max_length=5)] = (32, 64, 128),  # type: ignore[assignment]
    convolutions: Count = 3,
    dense: Annotated[list[Count], Field(max_length=5)] = (128, 128),  # type: ignore[assignment]
    dropout: Fraction = 0.2,
    batch_norm_momentum: Momentum = 0.99,
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

    Raises:
        UserError: the images are too small for the poolings.
    """
    if min(input_shape[:2]) < 2 ** len(filters):
        size = " x ".join(map(str, input_shape[:2]))
        raise UserError(f"model.filters: of images of {size} {len(filters)} poolings leave none")
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
