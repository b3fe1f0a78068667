"""Where images come from: CIFAR-10 itself, scikit-learn's digits, or a folder or archive.

Whatever a folder or an archive holds is data from strangers. Archives are read member by member
in memory and never unpacked to disk, images are opened by a short list of decoders only, pickles
are read by stand-ins that run nothing, and whatever is wrong ends as a one-line ``UserError``.
"""

import codecs
import contextlib
import functools
import hashlib
import io
import lzma
import os
import pickle
import re
import stat
import struct
import tarfile
import tempfile
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
import platformdirs
from PIL import Image

from resnet import UserError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
# The official archive's batch files and their MD5 sums. They tell whether a copy, packed or
# unpacked, is the official data; they are no defence against forgery.
BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BATCHES_META = "batches.meta"
OFFICIAL_FILES = (*BATCHES, BATCHES_META)
SPLITS = ("train", "test")
ACCEPTED = (
    "cifar10, digits, the official cifar-10-python.tar.gz (packed or unpacked), or an image "
    "folder train/<class>/*, test/<class>/* or a tar or zip archive of it"
)

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
MAX_SIDE = 1024  # pixels
MAX_CLASSES = 256  # labels are uint8
# A few kilobytes of archive can unpack to any size: what is beyond these is refused unread.
MAX_IMAGE_BYTES = 4 << 20
MAX_BATCH_BYTES = 64 << 20
MAX_TOTAL_BYTES = 4 << 30
MAX_MEMBERS = 1_000_000

CACHE_FORMAT = 1  # raise it when the same bytes shall decode to other arrays

# What the readers of archives and images are known to raise on broken input.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # zipfile: encrypted, or a compression it does not know
    SyntaxError,  # Pillow: a broken PNG
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)

Progress = Callable[[str, int, int], None]
Files = dict[tuple[str, ...], bytes]  # by path below the folder that holds train/ and test/


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, split into training and test set.

    Attributes:
        name: ``"cifar10"`` (the official data only), ``"digits"``, or the stem of the folder or
            archive, such as ``"cifar10-jpeg"``.
        classes: Class names; a label is an index into them.
        x_train: Training images, uint8 of shape (n, height, width, 3), values 0..255.
        y_train: Their labels, uint8 of shape (n,).
        x_test: Test images, as ``x_train``.
        y_test: Their labels, as ``y_train``.
        source: The path as given, or the function the images came from.
    """

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the four arrays' shapes, dtypes and bytes; no name enters it."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


def load(data: str, progress: Progress | None = None) -> Dataset:
    """Load a data set by name or from a path.

    Args:
        data: ``"cifar10"`` (Keras downloads it on first use), ``"digits"`` (1,797 images that
            come with scikit-learn, 16 x 16), or a path: an image folder
            ``train/<class>/*``, ``test/<class>/*`` (or the one subfolder that is such a folder),
            a tar or zip archive of it, the official ``cifar-10-python.tar.gz``, or that archive
            unpacked. A folder that is itself called cifar10 is given as ``./cifar10``.
        progress: Called as ``progress(what, done, total)`` while files are read and decoded.

    Returns:
        The data set. Images of a folder are in the natural order of their file names across
        classes (``2.jpg`` before ``10.jpg``), so that an index in the name restores the order
        the images once had.

    Raises:
        UserError: The data cannot be had, or is not what it should be.
    """
    progress = progress or (lambda what, done, total: None)
    if data == "cifar10":
        return _cifar10()
    if data == "digits":
        return _digits()
    return _from_path(Path(data), data, progress)


def _cifar10() -> Dataset:
    import keras  # it takes seconds, which only this source needs to spend

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as error:  # the download, its hash check and the unpacking share no base
        raise _error(
            f"CIFAR-10 cannot be had ({_brief(error)}); ways out: --data PATH with the official "
            "cifar-10-python.tar.gz, or with an image folder train/<class>/*, test/<class>/* or "
            "an archive of it; --data digits to try the machinery offline"
        ) from error
    return Dataset(
        "cifar10",
        CIFAR10_CLASSES,
        x_train,
        y_train.reshape(-1),
        x_test,
        y_test.reshape(-1),
        "keras.datasets.cifar10",
    )


def _digits() -> Dataset:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    small = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    x = np.stack(
        [
            Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR).convert("RGB")
            for image in small
        ]
    )
    y = digits.target.astype(np.uint8)
    test = np.arange(len(y)) % 5 == 4
    classes = tuple(str(name) for name in digits.target_names)
    return Dataset(
        "digits", classes, x[~test], y[~test], x[test], y[test], "sklearn.datasets.load_digits"
    )


def _from_path(path: Path, source: str, progress: Progress) -> Dataset:
    files = None
    with _readable(source):
        if path.is_dir():
            files = _collect(source, _folder_members(path, progress))
            digest = _digest(files)
        elif path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            raise _error(f"no file or folder {source!r}; --data accepts {ACCEPTED}")

    name = _name(path)
    # Decoders differ in the last bit between Pillow's versions.
    cache = platformdirs.user_cache_path("resnet-ladder") / (
        f"images-{CACHE_FORMAT}-pillow-{PIL.__version__}-{digest}.npz"
    )
    if (cached := _restore(cache, name, source)) is not None:
        return cached

    if files is None:
        with _readable(source):
            members = _zip_members if _is_zip(path) else _tar_members
            files = _collect(source, members(path, progress))
    if any(len(key) == 1 for key in files):  # batches; images lie deeper
        return _from_batches(files, name, source)
    # Pillow warns of huge images; here they are refused.
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        dataset = _from_images(files, name, source, progress)
    _store(cache, dataset)
    return dataset


# Reading folders and archives


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes] | None  # None: a folder


class _Header(tarfile.TarInfo):
    """A tar header that is trusted less than tarfile trusts it."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            # tarfile takes a damaged or missing header for the end: images would be lost unseen.
            raise tarfile.ReadError(f"damaged or truncated ({error})") from error
        # tarfile reads extended headers into memory whole, before it yields their member.
        if header.size > MAX_BATCH_BYTES:
            raise tarfile.ReadError(f"{header.name!r} is larger than any image or batch")
        return header


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise _error(f"cannot read {source!r}: {_brief(error)}") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _tar_members(path: Path, progress: Progress) -> Iterator[_Member]:
    size = path.stat().st_size
    with path.open("rb") as raw, _open_tar(raw) as archive:
        for member in archive:
            if not (member.isreg() or member.isdir()):
                raise _error(f"refuses {str(path)!r}: {member.name!r} is a link or a device")
            read = functools.partial(_tar_read, archive, member) if member.isreg() else None
            yield _Member(member.name, member.size, read)
            progress("reading archive", raw.tell(), size)
        # The compressor's checksum stands behind the last member: only reading on verifies it.
        archive.fileobj.read(MAX_IMAGE_BYTES)


def _open_tar(raw: BinaryIO) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=raw, tarinfo=_Header)
    except tarfile.ReadError as error:  # its text lists what each decompressor said
        raise tarfile.ReadError("no tar or zip archive, or damaged at its start") from error


def _tar_read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return archive.extractfile(member).read()


def _zip_members(path: Path, progress: Progress) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for done, member in enumerate(members, 1):
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _error(f"refuses {str(path)!r}: {member.filename!r} is a link or a device")
            read = None if member.is_dir() else functools.partial(_zip_read, archive, member)
            yield _Member(member.filename, member.file_size, read)
            progress("reading archive", done, len(members))


def _zip_read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    # zipfile can bound what it unpacks at a time for these two only.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{member.filename!r} is neither stored nor deflated")
    with archive.open(member) as file:
        return file.read(member.file_size)


def _folder_members(path: Path, progress: Progress) -> Iterator[_Member]:
    files = []
    for below in ("", "*/"):
        patterns = [f"{split}/*/*" for split in SPLITS] + list(OFFICIAL_FILES)
        files = [file for pattern in patterns for file in path.glob(below + pattern)]
        if files:
            break
    for done, file in enumerate(files, 1):
        if file.is_file():
            name = file.relative_to(path).as_posix()
            yield _Member(name, file.stat().st_size, file.read_bytes)
        progress("reading folder", done, len(files))


def _collect(source: str, members: Iterator[_Member]) -> Files:
    """Vet every member and read those that belong to the data set."""
    roots: dict[tuple[str, ...], Files] = {}
    total = 0
    for count, member in enumerate(members, 1):
        # Windows' rules know both kinds of slash and of absolute path.
        path = PureWindowsPath(member.name)
        if path.anchor or ".." in path.parts:
            raise _error(f"refuses {source!r}: {member.name!r} leads out of the archive")
        if count > MAX_MEMBERS:
            raise _error(f"refuses {source!r}: more than {MAX_MEMBERS:,} members")
        place = _place(path.parts)
        if member.read is None or place is None:
            continue
        root, key = place
        limit = MAX_BATCH_BYTES if len(key) == 1 else MAX_IMAGE_BYTES
        total += member.size
        if member.size > limit or total > MAX_TOTAL_BYTES:
            raise _error(
                f"refuses {source!r}: {member.name!r} makes it too large (limits: {limit:,} bytes "
                f"here, {MAX_TOTAL_BYTES:,} in all)"
            )
        files = roots.setdefault(root, {})
        if key in files:
            raise _error(f"refuses {source!r}: it holds {member.name!r} twice")
        files[key] = member.read()
    if () in roots:
        return roots[()]
    if len(roots) != 1:
        found = "several such folders" if roots else "no image"
        raise _error(f"{source!r} holds {found}; --data accepts {ACCEPTED}")
    return roots.popitem()[1]


def _place(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Split a member's path into the data set's folder and the rest; None: not of the data set."""
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    if len(parts) in (1, 2) and parts[-1] in OFFICIAL_FILES:
        return parts[:-1], parts[-1:]
    if len(parts) in (3, 4) and parts[-3] in SPLITS:
        return parts[:-3], parts[-3:]
    return None


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for key in sorted(files):
        digest.update(f"{key!r} {len(files[key])}\n".encode())
        digest.update(files[key])
    return digest.hexdigest()


def _name(path: Path) -> str:
    name = path.name if path.name not in ("", "..") else path.resolve().name
    stem = re.sub(r"\.(tar(\.\w+)?|t[gbx]z2?|zip)$", "", name, flags=re.IGNORECASE) or name
    # These two names say that the content is known, which a folder's name cannot promise.
    return f"{stem}-images" if stem.casefold() in ("cifar10", "digits") else stem


# Image folders


def _from_images(files: Files, name: str, source: str, progress: Progress) -> Dataset:
    found = {split: sorted({key[1] for key in files if key[0] == split}) for split in SPLITS}
    for split, classes in found.items():
        if not classes:
            raise _error(f"{source!r} has no image in {split}/<class>/; --data accepts {ACCEPTED}")
    classes = found["train"]
    if only := sorted(set(classes) ^ set(found["test"])):
        raise _error(f"{source!r}: train and test differ in the class {only[0]!r}")
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise _error(f"{source!r} has {len(classes)} class(es), not 2 to {MAX_CLASSES}")
    if odd := [name for name in classes if not name.isprintable()]:
        raise _error(f"{source!r}: the class name {odd[0]!r} cannot be printed")

    keys = {split: sorted((k for k in files if k[0] == split), key=_natural) for split in SPLITS}
    first_key = keys["train"][0]
    first = _decode_image(source, first_key, files[first_key], None)
    if len(files) * first.nbytes > MAX_TOTAL_BYTES:
        raise _error(f"refuses {source!r}: decoded, it exceeds {MAX_TOTAL_BYTES:,} bytes")
    label = {name: index for index, name in enumerate(classes)}
    arrays = []
    done = 0
    for split in SPLITS:
        x = np.empty((len(keys[split]), *first.shape), np.uint8)
        for image, key in zip(x, keys[split], strict=True):
            image[:] = _decode_image(source, key, files[key], first.shape[1::-1])
            done += 1
            if done % 256 == 0 or done == len(files):
                progress("decoding images", done, len(files))
        arrays += [x, np.array([label[key[1]] for key in keys[split]], np.uint8)]
    return Dataset(name, tuple(classes), *arrays, source)


def _natural(key: tuple[str, ...]) -> tuple[str, ...]:
    _, label, file = key
    return re.sub(r"[0-9]+", lambda number: number[0].zfill(20), file), label, file


def _decode_image(
    source: str, key: tuple[str, ...], data: bytes, size: tuple[int, int] | None
) -> np.ndarray:
    """Decode one image to uint8 (height, width, 3); ``size`` is (width, height), None for any."""
    where = f"{'/'.join(key)!r} in {source!r}"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # Before a pixel is decoded: a small file can claim to be a huge image.
            if max(image.size) > MAX_SIDE:
                raise _error(f"{where} is {_by(image.size)}, larger than {MAX_SIDE} pixels a side")
            if size is not None and image.size != size:
                raise _error(f"{where} is {_by(image.size)}, the first image is {_by(size)}")
            if image.mode.startswith(("I", "F")):  # Pillow would clip these, not scale them
                raise _error(f"{where} has more than 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except PIL.UnidentifiedImageError as error:
        raise _error(f"{where} is no image ({', '.join(FORMATS)})") from error
    except BROKEN as error:
        raise _error(f"{where} cannot be decoded: {_brief(error)}") from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


# The official archive's pickles


class _Pickled:
    """Stands in for numpy's classes while unpickling: keeps what they would get, runs nothing."""

    state = None

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        self.state = state


# Written in Python on purpose: the C unpickler reserves memory for whatever a file claims.
class _Unpickler(pickle._Unpickler):
    """Reads plain containers and numpy arrays, the latter as ``_Pickled``."""

    known = {  # noqa: RUF012 - never changed
        ("numpy.core.multiarray", "_reconstruct"): _Pickled,
        ("numpy._core.multiarray", "_reconstruct"): _Pickled,
        ("numpy", "ndarray"): _Pickled,
        ("numpy", "dtype"): _Pickled,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 spells bytes in old protocols
    }

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"refuses to unpickle {module}.{name}")
        return self.known[module, name]


def _from_batches(files: Files, name: str, source: str) -> Dataset:
    if missing := [file for file in OFFICIAL_FILES if (file,) not in files]:
        raise _error(f"{source!r} lacks {missing[0]} of the official CIFAR-10 files")
    classes = _classes(source, files[BATCHES_META,])
    batches = [_batch(source, file, files[file,], len(classes)) for file in BATCHES]
    x_train, y_train = (np.concatenate(parts) for parts in zip(*batches[:-1], strict=True))
    x_test, y_test = batches[-1]
    if classes == CIFAR10_CLASSES and all(
        hashlib.md5(files[file,], usedforsecurity=False).hexdigest() == md5
        for file, md5 in BATCHES.items()
    ):
        name = "cifar10"
    return Dataset(name, classes, x_train, y_train, x_test, y_test, source)


def _classes(source: str, data: bytes) -> tuple[str, ...]:
    match _unpickle(source, BATCHES_META, data):
        case {b"label_names": [*names]} if all(
            isinstance(name, bytes) and re.fullmatch(rb"[ -~]+", name) for name in names
        ):
            classes = tuple(name.decode("ascii") for name in names)
            if 2 <= len(set(classes)) == len(classes) <= MAX_CLASSES:
                return classes
    raise _error(f"{BATCHES_META} in {source!r} holds no list of class names")


def _batch(source: str, file: str, data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one batch: images as uint8 (n, 32, 32, 3), labels as uint8 (n,)."""
    match _unpickle(source, file, data):
        case {
            b"data": _Pickled(
                state=(
                    _,
                    (int(n), 3072),
                    _Pickled(args=("u1" | b"u1", *_)),
                    bool(by_column),
                    bytes(raw),
                )
            ),
            b"labels": [*labels],
        } if len(raw) == n * 3072 and n == len(labels) > 0:
            if all(type(label) is int and 0 <= label < classes for label in labels):
                rows = np.frombuffer(raw, np.uint8).reshape(
                    (n, 3072), order="F" if by_column else "C"
                )
                x = rows.reshape(n, 3, 32, 32).transpose(0, 2, 3, 1)
                return np.ascontiguousarray(x), np.array(labels, np.uint8)
    raise _error(f"{file} in {source!r} is no CIFAR-10 batch: n x 3072 uint8 data and n labels")


def _unpickle(source: str, file: str, data: bytes) -> object:
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle is a damaged program: it may raise anything
        raise _error(f"{file} in {source!r} cannot be unpickled: {_brief(error)}") from error


# The cache of decoded images


def _restore(cache: Path, name: str, source: str) -> Dataset | None:
    try:
        with np.load(cache, allow_pickle=False) as stored:
            classes = tuple(str(label) for label in stored["classes"])
            arrays = [stored[f"{axis}_{split}"] for split in SPLITS for axis in "xy"]
            fingerprint = str(stored["fingerprint"])
        dataset = Dataset(name, classes, *arrays, source)
        return dataset if dataset.fingerprint == fingerprint else None
    except Exception:  # missing or damaged, in whatever way: the images are decoded again
        return None


def _store(cache: Path, dataset: Dataset) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as aside:
            draft = Path(aside) / cache.name
            with draft.open("wb") as file:
                np.savez(
                    file,
                    classes=np.array(dataset.classes),
                    x_train=dataset.x_train,
                    y_train=dataset.y_train,
                    x_test=dataset.x_test,
                    y_test=dataset.y_test,
                    fingerprint=np.array(dataset.fingerprint),
                )
                file.flush()
                os.fsync(file.fileno())
            draft.replace(cache)
    except OSError:
        pass  # a full or read-only disk costs the next run some seconds, not this run its data


def _brief(error: BaseException) -> str:
    return textwrap.shorten(str(error), 200) or type(error).__name__


def _error(text: str) -> UserError:
    return UserError(" ".join(text.split()))  # one line, whatever a library's message holds
