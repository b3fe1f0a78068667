"""The networks of Nielsen's chapter 6, with the initial weights of his ``network3.py``."""

from typing import Annotated, Literal

import keras
from keras import layers
from pydantic import Field

Count = Annotated[int, Field(ge=1, le=10_000)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


def convolutional(
    input_shape,
    classes,
    *,
    filters: list[Count] = (),
    dense: list[Count] = (100,),
    activation: Literal["sigmoid", "relu"] = "sigmoid",
    dropout: Fraction = 0.0,
    padding: Literal["valid", "same"] = "valid",
):
    """Builds 5x5 convolutions with 2x2 max pooling, dense layers and a softmax layer.

    Args:
        input_shape: height, width and channels of an image.
        classes: number of classes.
        filters: of each convolution.
        dense: units of each dense layer.
        activation: of all layers but the softmax layer.
        dropout: rate for the inputs of the dense layers and of the softmax layer.
        padding: of the convolutions.
    """
    image = x = keras.Input(input_shape)
    for i, count in enumerate(filters, 1):
        # The book adds the bias after the pooling, which is the same: the largest of four sums.
        x = layers.Conv2D(
            count,
            5,
            padding=padding,
            kernel_initializer=keras.initializers.RandomNormal(0.0, (25 * count / 4) ** -0.5),
            bias_initializer=keras.initializers.RandomNormal(0.0, 1.0),
            name=f"conv{i}",
        )(x)
        x = layers.MaxPooling2D(2, name=f"conv{i}_pool")(x)
        x = layers.Activation(activation, name=f"conv{i}_{activation}")(x)
    x = layers.Flatten(name="flatten")(x)
    for i, units in enumerate(dense, 1):
        x = layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.RandomNormal(0.0, units**-0.5),
            bias_initializer=keras.initializers.RandomNormal(0.0, 1.0),
            name=f"dense{i}",
        )(_dropped(x, dropout, f"dense{i}"))
    probabilities = layers.Dense(
        classes, activation="softmax", kernel_initializer="zeros", name="classifier"
    )(_dropped(x, dropout, "classifier"))
    return keras.Model(image, probabilities, name="convolutional")


def _dropped(x, rate, name):
    """Drops inputs as the book does: the mask alone in training, the inputs times 1 - p in tests.

    Keras divides by 1 - p in training. The rescaling takes this back, and is all that is left in
    tests. With p = 0.5 both are exact.
    """
    if not rate:
        return x
    x = layers.Dropout(rate, name=f"{name}_dropout")(x)
    return layers.Rescaling(1 - rate, name=f"{name}_rescaling")(x)
