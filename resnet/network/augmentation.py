"""Random transforms of a batch of images: affine transforms, shifts by whole pixels, and cutout.

Affine transforms have the distributions and the geometry of Keras's ``ImageDataGenerator``.
``ImageDataGenerator`` transforms one channel of one image at a time. Here, one operation transforms
a whole batch.
"""

from typing import Any

import numpy as np

from resnet.network.backend import keras
from resnet.study import Augmentation

ops = keras.ops


def draw(
    augmentation: Augmentation, generator: np.random.Generator, n: int, image_shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Draws parameters of affine transforms for ``n`` images.

    Returns:
        Arrays of shape (n,), named as in ``ImageDataGenerator.get_random_transform``: ``theta``
        (degrees), ``tx`` (pixels, from ``height_shift_range``), ``ty`` (pixels, from
        ``width_shift_range``), ``zx`` and ``zy`` (factors), ``flip_horizontal`` and
        ``flip_vertical`` (bool).
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
        "flip_vertical": (generator.random(n) < 0.5) & augmentation.vertical_flip,
    }


def projective(parameters: dict[str, np.ndarray], image_shape: tuple[int, int]) -> np.ndarray:
    """Converts the results of :func:`draw` to transforms for ``keras.ops.image.affine_transform``.

    Returns:
        float32 (n, 8): ``a0, a1, a2, b0, b1, b2, 0, 0``. The output pixel at column x and row y
        shows the input pixel at column ``a0 x + a1 y + a2`` and row ``b0 x + b1 y + b2``.
    """
    height, width = image_shape
    theta = np.deg2rad(parameters["theta"])
    cos, sin = np.cos(theta), np.sin(theta)
    tx, ty, zx, zy = (parameters[key] for key in ("tx", "ty", "zx", "zy"))

    # ImageDataGenerator multiplies its matrices in this order: rotation, shift, zoom.
    a0, a1, a2 = cos * zx, -sin * zy, cos * tx - sin * ty
    b0, b1, b2 = sin * zx, cos * zy, sin * tx + cos * ty
    # Rotation and zoom keep the centre in place. As in Keras, the centre's x comes from the height.
    centre_x, centre_y = height / 2 - 0.5, width / 2 - 0.5
    a2 = a2 + centre_x - a0 * centre_x - a1 * centre_y
    b2 = b2 + centre_y - b0 * centre_x - b1 * centre_y
    # The flips come last. After a horizontal flip, column x shows the old column (width - 1 - x).
    flip = parameters["flip_horizontal"]
    a2, b2 = np.where(flip, a2 + a0 * (width - 1), a2), np.where(flip, b2 + b0 * (width - 1), b2)
    a0, b0 = np.where(flip, -a0, a0), np.where(flip, -b0, b0)
    flip = parameters["flip_vertical"]
    a2, b2 = np.where(flip, a2 + a1 * (height - 1), a2), np.where(flip, b2 + b1 * (height - 1), b2)
    a1, b1 = np.where(flip, -a1, a1), np.where(flip, -b1, b1)

    zero = np.zeros_like(a0)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype("float32")


def boxes(
    augmentation: Augmentation,
    generator: np.random.Generator,
    moves: np.ndarray,
    image_shape: tuple[int, int],
) -> np.ndarray:
    """Draws shifts by whole pixels (``crop_padding``) and boxes of zeros (``cutout``).

    ``moves``, int (n, 2), are fixed shifts in rows and columns. Random shifts are added to them.

    Returns:
        float32 (n, 6): each image's shifts in rows and columns, and the top, bottom, left and
        right edges of its box.
    """
    shape, side = moves.shape, augmentation.cutout
    padding = augmentation.crop_padding
    moves = moves + generator.integers(-padding, padding, shape, endpoint=True)
    top, left = (generator.integers(0, image_shape, shape) - side // 2).T
    return np.column_stack([moves, top, top + side, left, left + side]).astype("float32")


def apply(images: Any, transforms: Any, fill_mode: str = "nearest") -> Any:
    """Applies ``transforms[i]`` to ``images[i]`` and returns images of the same shape and type.

    Args:
        images: float tensor (n, height, width, channels) with any range of values.
        transforms: float32 (n, 8) from :func:`projective`, (n, 6) from :func:`boxes`, or both
            side by side, (n, 14).
        fill_mode: ``nearest``, ``reflect`` or ``constant`` (zero), for pixels outside the image.
    """
    options = {"interpolation": "bilinear", "fill_mode": fill_mode}
    if transforms.shape[1] != 6:
        images = ops.image.affine_transform(images, transforms[:, :8], **options)
    return images if transforms.shape[1] == 8 else _move_and_cut(images, transforms[:, -6:])


def _move_and_cut(images: Any, boxed: Any) -> Any:
    """Moves images by whole pixels and sets boxes to zero; ``boxed`` comes from :func:`boxes`."""
    height, width, channels = images.shape[1:]
    rows = ops.arange(height, dtype="float32")[None, :, None]
    columns = ops.arange(width, dtype="float32")[None, None, :]
    down, right, top, bottom, left, end = (boxed[:, i, None, None] for i in range(6))
    row, column = rows - down, columns - right  # the source of each pixel
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
    flat = ops.reshape(ops.cast(place, "int32"), (-1, height * width, 1))
    pixels = ops.reshape(images, (-1, height * width, channels))
    moved = ops.reshape(ops.take_along_axis(pixels, flat, axis=1), (-1, height, width, channels))
    cut = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < end)
    return moved * ops.cast(inside & ~cut, images.dtype)[..., None]


def sample(images: Any, transforms: Any, fill_mode: str = "nearest") -> Any:
    """Gives the results of :func:`apply`, up to rounding, with fewer kernels on an accelerator.

    On JAX, Keras's ``affine_transform`` needs scatters. In deterministic mode, these become loops.
    Keras also computes coordinates with matrix products, which a GPU rounds to TF32. For each
    output pixel, Keras reads eight input pixels, although four are enough.
    """
    if transforms.shape[1] == 6:
        return _move_and_cut(images, transforms)
    n, height, width, channels = images.shape
    rows, columns = ops.meshgrid(ops.arange(height), ops.arange(width), indexing="ij")
    rows, columns = ops.cast(rows, "float32"), ops.cast(columns, "float32")
    a0, a1, a2, b0, b1, b2 = (transforms[:, i, None, None] for i in range(6))
    # x and y, (n, height, width), are the coordinates of each pixel's source
    x, y = a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2
    left, top = ops.floor(x), ops.floor(y)
    pixels = ops.reshape(images, (n, height * width, channels))

    def within(index: Any, size: int) -> Any:
        if fill_mode == "reflect":  # a border pixel appears again outside the image
            index = ops.floor(size - ops.abs(size - ops.mod(index, 2 * size) - 0.5))
        return ops.clip(index, 0, size - 1)

    def at(row: Any, column: Any) -> Any:
        place = within(row, height) * width + within(column, width)
        flat = ops.reshape(ops.cast(place, "int32"), (n, height * width, 1))
        shown = ops.reshape(ops.take_along_axis(pixels, flat, axis=1), images.shape)
        if fill_mode != "constant":
            return shown
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return shown * ops.cast(inside, images.dtype)[..., None]

    right, down = (x - left)[..., None], (y - top)[..., None]
    above = at(top, left) * (1 - right) + at(top, left + 1) * right
    below = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    shown = above * (1 - down) + below * down
    return shown if transforms.shape[1] == 8 else _move_and_cut(shown, transforms[:, 8:])
