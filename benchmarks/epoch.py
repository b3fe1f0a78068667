"""Whole epochs of rung 2: augmentation, validation, and here also checkpoint and MLflow.

    python -m benchmarks.epoch [--turns 3] [--images 6400]

Against the plain script: ``ImageDataGenerator``, stock layers, ``model.fit``. For this project the
share of an epoch spent outside its training and validation steps is told too; it falls as epochs
grow, and the study's are of 50,000 images.
"""

import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sides import compare, parser, report, serve
from benchmarks.subjects import BATCH, experiment, images, plain_keras
from resnet.study import Job

Side = tuple[Callable[[], float], Callable[[], dict]]
EXPERIMENT = experiment("2", ["training.epochs=1000"])


def by_epochs(train: Callable[[Callable[[], None]], Any]) -> Callable[[], None]:
    """Trains in a thread of its own, an epoch a call.

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

    network, x, y = plain_keras(EXPERIMENT, n)
    settings = EXPERIMENT.model_dump(exclude_defaults=True)["data"]["augmentation"]
    generator = ImageDataGenerator(**settings, validation_split=0.2)
    training = generator.flow(x, y, batch_size=BATCH, subset="training")
    validation = generator.flow(x, y, batch_size=BATCH, subset="validation")

    def train(pause: Callable[[], None]) -> None:  # one fit, which naps at its end
        at_end = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: pause())
        network.fit(
            training, validation_data=validation, epochs=1000, verbose=0, callbacks=[at_end]
        )

    epoch = by_epochs(train)

    def work() -> float:
        epoch()
        return training.n

    return work, dict


def this_project(n: int) -> Side:
    from resnet import Interrupted, events, tracking
    from resnet.data import Dataset
    from resnet.ladder import Ladder
    from resnet.store import connect
    from resnet.training.steps import TensorFlowSteps

    x, y = images(n)
    y = y.astype("uint8")
    dataset = Dataset("noise", tuple("abcdefghij"), x, y, x[:100], y[:100], "benchmarks.epoch")
    job, ending = Job(EXPERIMENT, 0), threading.Event()
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

        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Interrupted):
            store = connect(f"sqlite:///{Path(folder) / 'mlflow.db'}")
            with tracking.parent_run(store, "benchmark", job, dataset) as parent_id:
                ladder = Ladder(store, {job.modified: parent_id}, False, str(store.checkpoints))
                return ladder.run(job, dataset, listener, ending.is_set)
        return None

    for name in ("train", "test"):
        setattr(TensorFlowSteps, name, timed(getattr(TensorFlowSteps, name)))
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
    options = parser(__doc__, turns=3)
    options.add_argument("--images", type=int, default=6_400)
    chosen = options.parse_args()
    if chosen.images % 160:  # of a rest that is left out Keras 3 makes the whole next epoch
        options.error("--images: a fifth of them, which validates, must be whole batches of 32")
    if chosen.side:
        return serve(*SIDES[chosen.side](chosen.images))
    rates, further = compare(SIDES, chosen.turns)
    share = further["this project"]["share outside steps"]
    report(
        "epoch",
        f"Whole epochs of rung 2 on {chosen.images:,} images",
        "training images/s, validation included",
        {"": rates},
        "plain Keras script",
        (f"This project spent {share:.1%} of these epochs outside training and validation steps.",),
    )


if __name__ == "__main__":
    main()
