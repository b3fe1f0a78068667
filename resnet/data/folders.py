"""Reads image folders of the form train/<class>/* and test/<class>/*, or only <class>/*."""

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from resnet import UserError
from resnet.data.archives import Arrays, Progress, brief

ACCEPTED = (
    "cifar10, mnist, digits, the official archive cifar-10-python.tar.gz (not unpacked), an image "
    "folder with train/<class>/* and test/<class>/*, or a tar or zip archive of such a folder; a "
    "folder with only <class>/* needs test_fraction in study.yaml (docs/own-data.md)"
)
SPLITS = ("train", "test")
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
MAX_SIDE = 1024  # pixels
MAX_CLASSES = 256  # labels are uint8

# File endings of images, including formats that are refused
PICTURE = re.compile(r"(?i)\.(a?png|avif|bmp|gif|hei[cf]|jfif|jpe?g?|jxl|p[bgnp]m|svg|tiff?|webp)")
# Hidden files, and folders that operating systems add
HIDDEN = re.compile(r"\.|__MACOSX$|@eaDir$")

Note = Callable[[str], None]
Content = tuple[tuple[str, ...], *Arrays]  # class names and the arrays


def read(folder: Path, progress: Progress, note: Note, test_fraction: float | None) -> Content:
    """Reads class names, images and labels from a folder, or from its only subfolder.

    The images of all classes are sorted together by file name, in natural order (``2.jpg``
    before ``10.jpg``). This keeps numbered images in order across classes.

    Args:
        folder: contains train/<class>/ and test/<class>/, or only <class>/.
        progress: takes the number of decoded images.
        note: takes messages about ignored files, transparent images, and images in both splits.
        test_fraction: share of each class to draw for testing (seed 0), if only <class>/ exists.

    Raises:
        UserError: the folder has another structure, or contains an image that cannot be used.
        OSError: a folder cannot be read.
    """
    inner = _folders(folder)  # an archive often has a single top-level folder
    inside = len(inner) == 1 and inner[0].name not in SPLITS and _folders(inner[0])
    root = inner[0] if inside else folder
    tops = [path for path in _folders(root) if path.name in SPLITS]
    split = any(map(_folders, tops))
    paths = _images(folder, root, tops if split else [root], note) if split or test_fraction else []
    if not paths:
        raise UserError(f"no image in train/<class>/ or test/<class>/; --data accepts {ACCEPTED}")
    padded = partial(re.compile(r"[0-9]+").sub, lambda number: number[0].zfill(20))
    paths.sort(key=lambda path: (padded(path.name), path.relative_to(root).parts))
    names = [path.relative_to(root).parts[split] for path in paths]
    classes = sorted(set(names))
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise UserError(f"the number of classes is {len(classes)}; it must be 2 to {MAX_CLASSES}")
    if odd := [name for name in classes if not name.isprintable()]:
        raise UserError(f"the class name {odd[0]!r} cannot be printed; rename the folder")
    y = np.array([classes.index(name) for name in names], np.uint8)
    in_test = np.array([path.is_relative_to(root / "test") for path in paths])
    test = in_test if split else stratified(y, test_fraction or 0)
    for label, name in enumerate(classes):
        taken, count = test[y == label].sum(), (y == label).sum()
        if not 0 < taken < count:
            raise UserError(
                f"the class {name!r} has {count - taken} training and {taken} test images, but "
                f"needs both; {'add images' if split else 'choose another test_fraction'}"
            )
    train_paths, test_paths = (list(compress(paths, part)) for part in (~test, test))
    x = _decoded(folder, train_paths + test_paths, progress, note)
    x_train, x_test = np.split(x, [len(train_paths)])
    known = {hash(image.tobytes()) for image in x_train}
    seen = compress(test_paths, [hash(image.tobytes()) in known for image in x_test])
    _list(note, "test images that are also training images", folder, seen)
    return tuple(classes), x_train, y[~test], x_test, y[test]


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not HIDDEN.match(path.name)]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _images(folder: Path, root: Path, tops: list[Path], note: Note) -> list[Path]:
    """Finds the images of the classes in ``tops``, and notes which files are left out."""
    images = []
    left_out: dict[str, list[Path]] = defaultdict(list)
    if root != folder:
        left_out["outside the dataset's only subfolder"] += set(_visible(folder)) - {root}
    if root not in tops:
        left_out["outside train/ and test/"] += set(_visible(root)) - set(tops)
    for top in tops:
        for path in _files(top):
            parts = path.relative_to(top).parts
            if len(parts) < 2:
                left_out["in no class"].append(path)
            elif _is_image(folder, path):
                images.append(path)
            else:
                left_out["not an image"].append(path)
    for reason, paths in left_out.items():
        _list(note, f"left out ({reason})", folder, paths)
    return images


def _files(folder: Path) -> Iterator[Path]:
    for path in _visible(folder):
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path
        else:  # a circular link is neither file nor folder, because the system stops following it
            name = str(path)[-90:]
            raise UserError(f"{name!r} is a broken or circular link, or a special file; remove it")


def _is_image(folder: Path, path: Path) -> bool:
    """Checks whether a file has an image's ending, or can be decoded if it has no ending."""
    if path.suffix:
        return bool(PICTURE.fullmatch(path.suffix))
    with suppress(UserError):
        _decode(folder, path)
        return True
    return False


def _list(note: Note, subject: str, folder: Path, paths: Iterable[Path]) -> None:
    if names := [repr(str(path.relative_to(folder))) for path in sorted(paths)]:
        note(f"{subject}: {len(names):,} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})")


def _decoded(folder: Path, paths: list[Path], progress: Progress, note: Note) -> np.ndarray:
    """Decodes images of equal size to RGB. Returns uint8, shape (n, height, width, 3)."""
    width, height = _decode(folder, paths[0]).size
    x = np.empty((len(paths), height, width, 3), np.uint8)
    transparent = []
    for index, path in enumerate(paths):
        layer = _decode(folder, path)
        if layer.size != (width, height):
            name, size = str(path.relative_to(folder)), f"{layer.width} x {layer.height}"
            raise UserError(f"{name!r} is {size}, but the first image is {width} x {height}")
        if np.asarray(layer)[..., 3].min() < 255:
            transparent.append(path)
            layer = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        x[index] = np.asarray(layer)[..., :3]
        if index % 256 == 255 or index + 1 == len(paths):
            progress("decoding images", index + 1, len(paths))
    _list(note, "transparent images, put on a white background", folder, transparent)
    return x


def _decode(folder: Path, path: Path) -> Image.Image:
    """Decodes an image to RGBA, and rotates it as its EXIF data says."""
    try:
        # Pillow's warnings concern images that are refused below, or that can be decoded anyway.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            # checked before decoding, because a small file can contain a huge image
            if max(image.size) > MAX_SIDE:
                raise ValueError("{} x {} pixels; limit: {} per side".format(*image.size, MAX_SIDE))
            # Pillow would silently reduce PNG and PPM channels of more than 8 bits to 8 bits
            if image.mode.startswith(("I", "F")) or any(
                ";16B" in str(tile.args)
                or (tile.codec_name.startswith("ppm") and tile.args[1] > 255)
                for tile in getattr(image, "tile", ())
            ):
                raise ValueError("more than 8 bits per channel")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ValueError(f"{frames} frames; save one of them as an image")
            image.load()
            with suppress(Exception):  # an image with broken EXIF data is not rotated
                ImageOps.exif_transpose(image, in_place=True)
            return image.convert("RGBA")
    except Exception as broken:  # a broken image may raise anything
        unknown = isinstance(broken, UnidentifiedImageError)
        reason = f"not one of the formats {', '.join(FORMATS)}" if unknown else brief(broken)
        raise UserError(f"{str(path.relative_to(folder))!r}: {reason}") from broken


def stratified(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Draws ``fraction`` of each class, in whole images, with seed 0. Returns a mask, bool (n,)."""
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.random.default_rng([0, label]).permutation(np.flatnonzero(labels == label))
        drawn[own[: round(len(own) * fraction)]] = True
    return drawn
