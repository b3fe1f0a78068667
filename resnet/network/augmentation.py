"""Random transforms of a whole batch: affine ones, shifts by whole pixels, and squares cut out.

Distributions and geometry are those of Keras's ``ImageDataGenerator`` with rotation, shifts,
independent zooms and flips (bilinear), which transforms one image and one channel at a time. Here
an image's parameters become one projective transform, and one operation applies those of a batch.
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
    """Draws the parameters of ``n`` images of some height and width in pixels.

    Returns:
        Arrays of shape (n,), named as in ``ImageDataGenerator.get_random_transform``:
        ``theta`` (degrees), ``tx`` and ``ty`` (pixels; drawn from the height's and the width's
        range), ``zx`` and ``zy`` (factors), ``flip_horizontal`` and ``flip_vertical`` (bool).
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
    """Makes transforms for ``keras.ops.image.affine_transform`` from parameters of :func:`draw`.

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
    # about the centre, whose first coordinate Keras takes from the height
    centre_x, centre_y = height / 2 - 0.5, width / 2 - 0.5
    a2 = a2 + centre_x - a0 * centre_x - a1 * centre_y
    b2 = b2 + centre_y - b0 * centre_x - b1 * centre_y
    # the flip comes last: column x shows what column (width - 1 - x) would have shown
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

    The random shifts are added to ``moves``, int (n, 2): rows and columns.

    Returns:
        float32 (n, 6): the rows and columns that an image is moved by; top, bottom, left and right
        of its box.
    """
    n, side = len(moves), augmentation.cutout
    padding = augmentation.crop_padding
    moves = moves + generator.integers(-padding, padding, (n, 2), endpoint=True)
    corners = generator.integers(0, image_shape, (n, 2)) - side // 2
    (top, left), down = corners.T, side
    return np.column_stack([moves, top, top + down, left, left + down]).astype("float32")


def apply(images: Any, transforms: Any, fill_mode: str = "nearest") -> Any:
    """Applies one transform to each image.

    Args:
        images: float tensor (n, height, width, channels), any value range.
        transforms: float32 (n, 8) from :func:`projective`, (n, 6) from :func:`boxes`, or (n, 14)
            of both.
        fill_mode: the pixels outside of an image: ``nearest``, ``reflect``, or ``constant`` (0).

    Returns:
        Tensor of the images' shape and type.
    """
    options = {"interpolation": "bilinear", "fill_mode": fill_mode}
    if transforms.shape[1] != 6:
        images = ops.image.affine_transform(images, transforms[:, :8], **options)
    return images if transforms.shape[1] == 8 else _move_and_cut(images, transforms[:, -6:])


def _move_and_cut(images: Any, boxed: Any) -> Any:
    """Moves images by whole pixels and cuts boxes out, as :func:`boxes` says."""
    height, width, channels = images.shape[1:]
    rows = ops.arange(height, dtype="float32")[None, :, None]
    columns = ops.arange(width, dtype="float32")[None, None, :]
    down, right, top, bottom, left, end = (boxed[:, i, None, None] for i in range(6))
    row, column = rows - down, columns - right  # where the pixels come from
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
    flat = ops.reshape(ops.cast(place, "int32"), (-1, height * width, 1))
    pixels = ops.reshape(images, (-1, height * width, channels))
    moved = ops.reshape(ops.take_along_axis(pixels, flat, axis=1), (-1, height, width, channels))
    cut = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < end)
    return moved * ops.cast(inside & ~cut, images.dtype)[..., None]


def sample(images: Any, transforms: Any, fill_mode: str = "nearest") -> Any:
    """Equals :func:`apply` within rounding, in a handful of kernels for an accelerator.

    Keras's operation on JAX sets columns of the transforms by scatters, which become loops if they
    must be deterministic. It multiplies coordinates in products, which a GPU rounds to TF32, and
    takes eight pixels where four are enough.
    """
    if transforms.shape[1] == 6:
        return _move_and_cut(images, transforms)
    n, height, width, channels = images.shape
    rows, columns = ops.meshgrid(ops.arange(height), ops.arange(width), indexing="ij")
    rows, columns = ops.cast(rows, "float32"), ops.cast(columns, "float32")
    a0, a1, a2, b0, b1, b2 = (transforms[:, i, None, None] for i in range(6))
    # where the pixels of (n, height, width) come from
    x, y = a0 * columns + a1 * rows + a2, b0 * columns + b1 * rows + b2
    left, top = ops.floor(x), ops.floor(y)
    pixels = ops.reshape(images, (n, height * width, channels))

    def within(index: Any, size: int) -> Any:
        if fill_mode == "reflect":  # the outermost pixel comes twice
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
