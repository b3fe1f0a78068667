"""Times rung 2's epochs, with augmentation and validation, in a plain script and in this project.

The script uses ``ImageDataGenerator``, Keras's own layers and ``model.fit``. Only this project
writes checkpoints and stores metrics in MLflow. A turn trains two epochs and times the second.
"""

import tempfile
import time

import typer

from benchmarks import subjects
from benchmarks.sides import Side, Turn, compare, report
from resnet.study import Job

RUNG = subjects.experiment("2", ["training.epochs=2"])
IMAGES = 6_400  # fills all batches, because Keras 3 ends an epoch at an incomplete batch


def plain_script(n: int) -> Turn:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    network, data = subjects.plain_network(RUNG), subjects.plain_images(n)
    settings = RUNG.model_dump(exclude_defaults=True)["data"]["augmentation"]
    generator = ImageDataGenerator(**settings, validation_split=0.2)
    training, validation = (
        generator.flow(*data, batch_size=subjects.BATCH, subset=subset)
        for subset in ("training", "validation")
    )
    return lambda: subjects.second_epoch(network, training.n, training, validation_data=validation)


def this_project(n: int) -> Turn:
    from resnet import events
    from resnet.data import Dataset
    from resnet.engines import run_jobs
    from resnet.store import connect

    x, y = subjects.images(n)
    y = y.astype("uint8")
    dataset = Dataset("noise", tuple("abcdefghij"), x, y, x[:100], y[:100], "benchmarks.epoch")

    def turn() -> float:
        ends = []

        def listener(event: events.Event) -> None:
            if isinstance(event, events.Epoch):
                ends.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            store = connect(f"sqlite:///{folder}/mlflow.db")
            run_jobs([Job(RUNG, 0)], dataset, store, listener, name="benchmark")
        return n * 0.8 / (ends[1] - ends[0])

    return turn


SIDES: dict[str, Side] = {"plain Keras script": plain_script, "this project": this_project}


def main(turns: int = 3) -> None:
    """Times whole epochs of rung 2 on a CPU. A plain Keras script and this project take turns."""
    rates = {"": compare(SIDES, IMAGES, turns)}
    title = f"Whole epochs of rung 2 on {IMAGES:,} images"
    report("epoch", title, "training images/s, validation time included", rates)


if __name__ == "__main__":
    typer.run(main)
