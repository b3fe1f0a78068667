"""Whole epochs of rung 2: augmentation, validation, and here also checkpoint and MLflow.

    python -m benchmarks.epoch [--turns 3] [--images 12500]

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

    def work() -> float:
        network.fit(
            training,
            steps_per_epoch=training.n // 32,
            validation_data=validation,
            validation_steps=validation.n // 32,
            verbose=0,
        )
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
    permits: queue.Queue[None] = queue.Queue()
    done: queue.Queue[events.Event | None] = queue.Queue()
    ending = threading.Event()
    spent = {"steps": 0.0, "epochs": 0.0}

    def timed(function: Callable) -> Callable:
        def wrapper(*arguments: Any) -> None:
            began = time.perf_counter()
            function(*arguments)
            spent["steps"] += time.perf_counter() - began

        return wrapper

    def one_at_a_time(event: events.Event) -> None:
        if isinstance(event, events.Epoch):
            done.put(None)
            permits.get()

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = connect(f"sqlite:///{Path(folder) / 'mlflow.db'}")
            with tracking.parent_run(store, "benchmark", {}) as parent_id:
                tags = {"profile": "full", "modified": ""}
                shared = ladder.Ladder(store, tags, parent_id, False, str(store.checkpoints))
                with contextlib.suppress(Interrupted):
                    done.put(shared.run(job, dataset, one_at_a_time, ending.is_set))

    engine = steps._TensorFlowSteps
    for name in ("train", "test"):
        setattr(engine, name, timed(getattr(engine, name)))
    thread = threading.Thread(target=train, daemon=True)

    def work() -> float:
        began, first = time.perf_counter(), thread.ident is None
        thread.start() if first else permits.put(None)
        if failed := done.get():
            raise SystemExit(str(failed))
        spent["epochs"] += time.perf_counter() - began
        if first:  # it compiles, and is not counted
            spent.update(steps=0.0, epochs=0.0)
        return n - int(n * 0.2)

    def overhead() -> dict:
        share = 1 - spent["steps"] / spent["epochs"]
        ending.set()
        permits.put(None)
        thread.join()
        return {"share outside steps": share}

    return work, overhead


SIDES = {"plain Keras script": plain_script, "this project": this_project}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--images", type=int, default=12_500)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
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
