"""Whole epochs of rung 2: augmentation, validation, and here also checkpoint and MLflow.

    python -m benchmarks.epoch [--turns 3] [--images 6400]

Against the plain script: ``ImageDataGenerator``, stock layers, ``model.fit``. For this project the
share of an epoch spent outside its training and validation steps is told too; it falls as epochs
grow, and the study's are of 50,000 images.
"""

import argparse
import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.sides import compare, report, serve
from resnet import config

Side = tuple[Callable[[], float], Callable[[], dict]]
EXPERIMENT = config.load(config.find()["02_augmentation"])


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, 32, 32, 3), "uint8"), np.arange(n, dtype="uint8") % 10


def by_epochs(train: Callable[[Callable[[], None]], Any]) -> Callable[[], None]:
    """A training in a thread of its own, an epoch a call.

    Args:
        train: calls what it is given at the end of each epoch; whatever it returns is a failure.
    """
    permits: queue.Queue[None] = queue.Queue()
    done: queue.Queue[Any] = queue.Queue()

    def pause() -> None:
        done.put(None)
        permits.get()

    def run() -> None:
        try:
            done.put(train(pause))
        except Exception as error:
            done.put(error)

    thread = threading.Thread(target=run, daemon=True)

    def epoch() -> None:
        thread.start() if thread.ident is None else permits.put(None)
        if failed := done.get():
            raise SystemExit(str(failed))

    return epoch


def plain_script(n: int) -> Side:
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    from resnet import models

    x, y = images(n)
    x, y = x.astype("float32") / 255, keras.utils.to_categorical(y, 10)
    network = models.stock(models.build(EXPERIMENT.model, (32, 32, 3), 10, seed=0))
    network.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    settings = EXPERIMENT.model_dump()["data"]["augmentation"]
    generator = ImageDataGenerator(**settings, validation_split=0.2)
    training = generator.flow(x, y, batch_size=32, subset="training")
    validation = generator.flow(x, y, batch_size=32, subset="validation")

    def train(pause: Callable[[], None]) -> None:  # one fit, which naps at its end
        network.fit(
            training,
            validation_data=validation,
            epochs=1000,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: pause())],
        )

    epoch = by_epochs(train)

    def work() -> float:
        epoch()
        return training.n

    return work, dict


def this_project(n: int) -> Side:
    from resnet import Interrupted, events, ladder, steps, tracking
    from resnet.data import Dataset
    from resnet.store import connect

    x, y = images(n)
    dataset = Dataset("noise", tuple("abcdefghij"), x, y, x[:100], y[:100], "benchmarks.epoch")
    changes = {"training": {"epochs": 1000}}
    job = config.Job(config.change(EXPERIMENT, changes, "benchmark"), 0)
    ending = threading.Event()
    in_steps: list[float] = []
    epochs: list[tuple[float, float]] = []
    """Seconds of each, and of its steps."""

    def timed(function: Callable) -> Callable:
        def wrapper(*arguments: Any) -> None:
            began = time.perf_counter()
            function(*arguments)
            in_steps.append(time.perf_counter() - began)

        return wrapper

    def train(pause: Callable[[], None]) -> events.Event | None:
        def listener(event: events.Event) -> None:
            if isinstance(event, events.Epoch):
                pause()

        with tempfile.TemporaryDirectory() as folder:
            store = connect(f"sqlite:///{Path(folder) / 'mlflow.db'}")
            with tracking.parent_run(store, "benchmark", {}) as parent_id:
                tags = {"profile": "full", "modified": ""}
                shared = ladder.Ladder(store, tags, parent_id, False, str(store.checkpoints))
                with contextlib.suppress(Interrupted):
                    return shared.run(job, dataset, listener, ending.is_set)
        return None

    backend = steps.TensorFlowSteps
    for name in ("train", "test"):
        setattr(backend, name, timed(getattr(backend, name)))
    epoch = by_epochs(train)

    def work() -> float:
        began = time.perf_counter()
        epoch()
        epochs.append((time.perf_counter() - began, sum(in_steps)))
        in_steps.clear()
        return n - int(n * 0.2)

    def overhead() -> dict:
        whole, of_steps = map(sum, zip(*epochs[1:], strict=True))  # the first one compiles
        ending.set()
        epoch()  # ends the training
        return {"share outside steps": 1 - of_steps / whole}

    return work, overhead


SIDES = {"plain Keras script": plain_script, "this project": this_project}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--images", type=int, default=6_400)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images % 160:  # of a rest that is left out Keras 3 makes the whole next epoch
        parser.error("--images: a fifth of them, which validates, must be whole batches of 32")
    if arguments.side:
        serve(*SIDES[arguments.side](arguments.images))
        return
    command = ["-m", "benchmarks.epoch", "--images", str(arguments.images), "--side"]
    rates, further = compare({side: [*command, side] for side in SIDES}, arguments.turns)
    share = further["this project"]["share outside steps"]
    report(
        "epoch",
        f"Whole epochs of rung 2 on {arguments.images:,} images",
        "training images/s, validation included",
        {"": rates},
        "plain Keras script",
        (f"This project spent {share:.1%} of these epochs outside training and validation steps.",),
    )


if __name__ == "__main__":
    main()
