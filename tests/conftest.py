"""Fixtures and helpers that the tests share: small images, experiments, stores and commands."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import resnet  # noqa: F401 - chooses TensorFlow's kernels, before any test imports Keras
from resnet import Interrupted
from resnet.training import train

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.register_assert_rewrite("ladders", "report_known")

ROOT = Path(__file__).resolve().parent.parent

# a network that compiles quickly and has every kind of stateful layer
SMALL = {
    "model": {
        "architecture": "vgg",
        "filters": [4],
        "convolutions": 1,
        "dense": [],
        "dropout": 0.5,
        "batch_norm_momentum": 0.9,
    }
}


def experiment(name, **changes):
    """Returns the shipped study's experiment ``name`` with ``changes`` applied."""
    from resnet.study import Study, change

    return change(Study.open().experiment(name), changes, "test")


def assert_same_outcome(whole, parts):
    """Asserts that two calls of ``train`` have the same results, apart from their timing."""
    timing = ("images_per_second", "epoch_seconds", "time")
    strip = [{k: v for k, v in r.items() if k not in timing} for r in whole.history]
    assert [{k: v for k, v in r.items() if k not in timing} for r in parts.history] == strip
    for a, b in zip(whole.network.variables, parts.network.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    np.testing.assert_array_equal(whole.probabilities, parts.probabilities)
    assert (whole.best_epoch, whole.stopped_epoch) == (parts.best_epoch, parts.stopped_epoch)


def assert_interrupted(calls, *args):
    """Asserts that ``train`` stops when the ``calls``-th call of ``should_stop`` returns True."""
    asked = itertools.count(1)
    with pytest.raises(Interrupted):
        train(*args, should_stop=lambda: next(asked) == calls)


def changed_keys(before, after):
    """Returns the keys in which two experiments differ; an absent key counts as None."""
    old, new = before.flat(), after.flat()
    return [key for key in {**new, **old} if old.get(key) != new.get(key)]


def refused(process, *texts):
    """Asserts that a command exits with code 2 and prints one error line with all ``texts``."""
    assert process.returncode == 2, process.err
    assert process.err.startswith("error: ")
    assert process.err.count("\n") == 1
    for text in texts:
        assert text in process.err


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("images") / "squares")


def squares(folder):
    """Writes a folder of 200 training and 40 test images of 8x8 pixels, in four classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 200), ("test", 40)):
        for index in range(count):
            label = index % 4
            pixels = generator.integers(0, 120, (8, 8, 3), "uint8")
            row, column = divmod(label, 2)
            pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 80
            path = folder / split / f"class{label}" / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="session")
def dataset():
    return bars()


def bars():
    """Returns a dataset of 160 training and 40 test images of 8x8 pixels, in four classes."""
    from resnet.data import Dataset

    generator = np.random.default_rng(0)
    y = np.arange(200, dtype="uint8") % 4
    x = generator.integers(0, 120, (200, 8, 8, 3), "uint8")
    for image, label in zip(x, y, strict=True):
        image[2 * label : 2 * label + 2] += 100
    return Dataset("bars", ("a", "b", "c", "d"), x[:160], y[:160], x[160:], y[160:], "test")


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """Returns an empty database's path. Tests copy the file, which takes seconds to create."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty, tmp_path):
    from report_store import Store

    return Store.copy(empty, tmp_path)


@pytest.fixture(scope="session")
def two_seeds(empty, tmp_path_factory):
    """Returns a store (rungs 1 and 2, seeds 0-2) and each run's number of correct predictions."""
    import report_known

    return report_known.two_seeds(empty, tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="session")
def full(empty, tmp_path_factory):
    """Returns a store with one run of each rung and of ``vgg``, and the store's report folder."""
    import report_known

    return report_known.full(empty, tmp_path_factory.mktemp("full"))


@pytest.fixture
def command(empty, tmp_path):
    """Returns a function that runs the real command line in a folder with a new store."""
    shutil.copyfile(empty, tmp_path / "mlflow.db")
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "COLUMNS": "200",
    }

    class Command:
        uri = environment["MLFLOW_TRACKING_URI"]
        folder = tmp_path
        checkpoints = tmp_path / "checkpoints"

        @staticmethod
        def start(*arguments, script=ROOT / "runner.py"):
            return subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
            )

        def __call__(self, *arguments, **options):
            process = self.start(*arguments, **options)
            process.out, process.err = process.communicate(timeout=1200)
            return process

    return Command()


@pytest.fixture
def here(command, monkeypatch, capfd):
    """Returns a function that runs the command line in this process, faster than ``command``."""
    import runner
    from resnet import terminal

    monkeypatch.setenv("MLFLOW_TRACKING_URI", command.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(command.folder / "cache"))
    monkeypatch.chdir(command.folder)
    monkeypatch.setattr(terminal.console, "width", 200)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer sets it; monkeypatch restores it

    def here(*arguments):
        words = ["runner.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words])
        with pytest.raises(SystemExit) as ended:
            runner.entry()
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, out=out, err=err)

    return here
