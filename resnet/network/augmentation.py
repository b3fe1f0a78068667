"""The study's random affine transform, a batch at once.

Same parameter distributions and same geometry as Keras's ``ImageDataGenerator`` with rotation,
shifts, independent zooms and horizontal flip (fill ``nearest``, bilinear), which transforms one
image and one channel at a time. Here an image's parameters become one projective transform,
flip included, and Keras applies all of a batch's transforms in one operation.
"""

from typing import Any

import numpy as np

from resnet.network.backend import keras
from resnet.study import Augmentation

ops = keras.ops


def draw(
    augmentation: Augmentation,
    generator: np.random.Generator,
    n: int,
    image_shape: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Draws the parameters of ``n`` images from ``ImageDataGenerator``'s distributions.

    Args:
        augmentation: the ranges.
        generator: the only source of randomness.
        n: number of images.
        image_shape: height and width in pixels.

    Returns:
        Arrays of shape (n,), named as in ``ImageDataGenerator.get_random_transform``:
        ``theta`` (degrees), ``tx`` and ``ty`` (pixels; drawn from the height's and the width's
        range), ``zx`` and ``zy`` (factors), ``flip_horizontal`` (bool).
    """
    height, width = image_shape

    def uniform(limit: float) -> np.ndarray:
        return generator.uniform(-limit, limit, n)

    return {
        "theta": uniform(augmentation.rotation_range),
        "tx": uniform(augmentation.height_shift_range) * height,
        "ty": uniform(augmentation.width_shift_range) * width,
        "zx": 1 + uniform(augmentation.zoom_range),
        "zy": 1 + uniform(augmentation.zoom_range),
        "flip_horizontal": (generator.random(n) < 0.5) & augmentation.horizontal_flip,
    }


def projective(parameters: dict[str, np.ndarray], image_shape: tuple[int, int]) -> np.ndarray:
    """Returns the transforms as ``keras.ops.image.affine_transform`` takes them.

    Args:
        parameters: arrays of shape (n,) as :func:`draw` returns them.
        image_shape: height and width in pixels.

    Returns:
        float32 (n, 8): ``a0, a1, a2, b0, b1, b2, 0, 0``; the output pixel at column x and row y
        shows the input at column ``a0 x + a1 y + a2`` and row ``b0 x + b1 y + b2``.
    """
    height, width = image_shape
    theta = np.deg2rad(parameters["theta"])
    cos, sin = np.cos(theta), np.sin(theta)
    tx, ty, zx, zy = (parameters[key] for key in ("tx", "ty", "zx", "zy"))

    # rotation . shift . zoom, as ImageDataGenerator multiplies them
    a0, a1, a2 = cos * zx, -sin * zy, cos * tx - sin * ty
    b0, b1, b2 = sin * zx, cos * zy, sin * tx + cos * ty
    # about the centre; that the first coordinate's is taken from the height is Keras's own habit
    centre_x, centre_y = height / 2 - 0.5, width / 2 - 0.5
    a2 = a2 + centre_x - a0 * centre_x - a1 * centre_y
    b2 = b2 + centre_y - b0 * centre_x - b1 * centre_y
    # the flip comes last: column x shows what column (width - 1 - x) would have shown
    flip = parameters["flip_horizontal"]
    a2, b2 = np.where(flip, a2 + a0 * (width - 1), a2), np.where(flip, b2 + b0 * (width - 1), b2)
    a0, b0 = np.where(flip, -a0, a0), np.where(flip, -b0, b0)

    zero = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype("float32")


def apply(images: Any, transforms: Any) -> Any:
    """Applies one transform to each image.

    Args:
        images: float tensor (n, height, width, channels), any value range.
        transforms: float32 (n, 8) from :func:`projective`.

    Returns:
        Tensor of the images' shape and type; outside an image its nearest pixel is repeated.
    """
    return ops.image.affine_transform(
        images, transforms, interpolation="bilinear", fill_mode="nearest"
    )


def sample(images: Any, transforms: Any) -> Any:
    """Applies transforms as :func:`apply` does, in a handful of kernels, for an accelerator.

    Keras's operation on JAX sets columns of the transforms by scatters, which determinism makes
    loops of, multiplies coordinates in products, which a GPU rounds to TF32, and takes eight
    pixels where the channels ask for four.

    Args:
        images: float tensor (n, height, width, channels), any value range.
        transforms: float32 (n, 8) from :func:`projective`.

    Returns:
        What :func:`apply` returns, within rounding.
    """
    n, height, width, channels = images.shape
    rows, columns = ops.meshgrid(ops.arange(height), ops.arange(width), indexing="ij")
    rows, columns = ops.cast(rows, "float32"), ops.cast(columns, "float32")
    a0, a1, a2, b0, b1, b2 = (transforms[:, i, None, None] for i in range(6))
    # where the pixels of (n, height, width) come from
    x, y = a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2
    left, top = ops.floor(x), ops.floor(y)
    pixels = ops.reshape(images, (n, height * width, channels))

    def at(row: Any, column: Any) -> Any:
        place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
        flat = ops.reshape(ops.cast(place, "int32"), (n, height * width, 1))
        return ops.reshape(ops.take_along_axis(pixels, flat, axis=1), images.shape)

    right, down = (x - left)[..., None], (y - top)[..., None]
    above = at(top, left) * (1 - right) + at(top, left + 1) * right
    below = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return above * (1 - down) + below * down
