"""Trains and tests one experiment, and resumes an interrupted run exactly.

A run may be killed at any instant and started again on the same machine. Its weights, curves,
learning rates and test accuracy then equal those of a run that was never killed, bit for bit.
Random numbers depend only on seed, epoch and position in the epoch, or come from generators whose
state is in the checkpoint. After a resume, callbacks get the figures of all earlier epochs again.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet import Interrupted, UserError, events
from resnet.data import Dataset
from resnet.network import build, keras, multiply_adds
from resnet.study import Experiment, Job, Training, signatures
from resnet.training import checkpoints
from resnet.training.epochs import Epochs
from resnet.training.numerics import numerics
from resnet.training.program import make_steps
from resnet.training.steps import EVALUATION_BATCH, Steps, groups

CHECKPOINT_SECONDS = 60.0
"""Time between two checkpoints within an epoch."""
EVENT_SECONDS = 0.2
"""Shortest time between two ``Progress`` events."""


@dataclass(frozen=True)
class Outcome:
    """The result of a finished run.

    ``history`` has one dictionary per epoch: epoch (from 1), loss, accuracy, val_loss,
    val_accuracy, learning_rate, images_per_second, epoch_seconds, and time (Unix time of the
    epoch's end). ``best_epoch`` is the epoch with the best value of early stopping's monitor or,
    without early stopping, of val_accuracy. ``tested_epoch`` is the epoch of the tested weights.
    ``stopped_epoch`` is the last epoch if early stopping ended the training, and 0 otherwise.
    ``shared_epochs`` counts the epochs that another run trained.
    """

    network: keras.Model
    history: events.History
    best_epoch: int
    tested_epoch: int
    stopped_epoch: int
    shared_epochs: int
    probabilities: np.ndarray
    test_loss: float
    test_accuracy: float

    def summary(self) -> dict[str, float]:
        """Returns the run's final figures, which become its metrics in MLflow."""
        return {
            "test_accuracy": self.test_accuracy,
            "test_loss": self.test_loss,
            "best_val_accuracy": max(record["val_accuracy"] for record in self.history),
            "best_epoch": self.best_epoch,
            "tested_epoch": self.tested_epoch,
            "stopped_epoch": self.stopped_epoch,
            "epochs_run": len(self.history),
            "shared_epochs": self.shared_epochs,
            "train_seconds": sum(record["epoch_seconds"] for record in self.history),
            "parameters": self.network.count_params(),
            "multiply_adds": multiply_adds(self.network),
        }


def make_callbacks(training: Training, network: keras.Model) -> dict[str, Any]:
    """Makes an experiment's callbacks for a network, in the order in which they act."""
    callbacks: dict[str, Any] = {}
    if stop := training.early_stopping:
        callbacks["early_stopping"] = callback = keras.callbacks.EarlyStopping(
            **stop.model_dump(exclude={"restore_best_weights", "ties"}),
            mode=_mode(stop.monitor),
            restore_best_weights=stop.restore_best_weights != "never",
        )
        if stop.ties == "last":
            higher = _mode(stop.monitor) == "max"
            callback.monitor_op = np.greater_equal if higher else np.less_equal
            callback.min_delta *= 1 if higher else -1  # Keras negates min_delta only for ops.less
    if reduce := training.reduce_lr_on_plateau:
        callbacks["reduce_lr_on_plateau"] = keras.callbacks.ReduceLROnPlateau(
            **reduce.model_dump(), mode=_mode(reduce.monitor)
        )
    network.stop_training = False
    for callback in callbacks.values():
        callback.set_model(network)
        callback.on_train_begin()
    return callbacks


def _schedule(training: Training) -> Any:
    if not (named := training.schedule):
        return None
    settings = named.settings
    if named.name == "piecewise_constant":
        # In an experiment, a rate holds while epoch < boundary; in Keras, while step <= boundary.
        settings["boundaries"] = [boundary - 1 for boundary in settings["boundaries"]]
    else:
        settings["initial_learning_rate"] = training.learning_rate
    return signatures.keras_class(keras.optimizers.schedules, named.name)(**settings)


def _mode(monitor: str) -> str:
    return "max" if monitor.endswith("accuracy") else "min"


class _Trainer:
    """A run in progress.

    After each epoch, the trainer writes a checkpoint. The checkpoint's name has the epoch's number
    and a digest of all learning rates so far. Runs of one trajectory share their checkpoints as
    long as their learning rates are equal. So :meth:`resume` loads each checkpoint that fits,
    whether this run or another run wrote it, and passes the checkpoint's figures to the callbacks.
    """

    def __init__(
        self,
        job: Job,
        steps: Steps,
        epochs: Epochs,
        folder: str,
        listener: events.Listener,
        should_stop: Callable[[], bool],
    ):
        self.job, self.steps, self.network = job, steps, steps.network
        self.epochs, self.folder = epochs, folder
        self.listener, self.should_stop = listener, should_stop
        self.callbacks = make_callbacks(job.experiment.training, steps.network)
        self.history: events.History = []
        self.step = 0  # steps done in the current epoch
        self.seconds = 0.0  # duration of these steps
        self.shared_epochs = 0  # epochs that another run trained
        self.saved_at = time.monotonic()
        self.numerics = numerics(steps.lanes)
        self._schedule = _schedule(job.experiment.training)
        self._set_rate()

    @property
    def due(self) -> bool:
        more = len(self.history) < self.job.experiment.training.epochs
        return more and not self.network.stop_training

    @property
    def rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.network.optimizer.learning_rate))

    def _set_rate(self) -> None:
        if self._schedule:
            rate = self._schedule(np.float32(len(self.history)))
            self.network.optimizer.learning_rate.assign(rate)

    @property
    def _variables(self) -> dict[str, Any]:
        network = self.network
        parts = network.variables, network.optimizer.variables, network.metrics_variables
        return {f"variable_{i}": variable for i, variable in enumerate(itertools.chain(*parts))}

    @property
    def _checkpoint(self) -> str:
        """The path or URL of the current epoch's checkpoint, without its suffix."""
        rates = [record["learning_rate"] for record in self.history]
        return f"{self.folder}/{checkpoints.name([*rates, self.rate])}"

    def save(
        self, record: dict[str, float] | None = None, running: list[np.ndarray] | None = None
    ) -> None:
        """Writes a checkpoint. ``record`` has the epoch's figures, or is None within an epoch.

        ``running`` has the metrics' values before validation, if validation has overwritten them.
        """
        self.steps.pull()
        if running:
            for variable, value in zip(self.network.metrics_variables, running, strict=True):
                variable.assign(value)
        arrays = {key: np.asarray(variable) for key, variable in self._variables.items()}
        meta = {
            "record": record,
            "step": self.step,
            "seconds": self.seconds,
            "trained_by": self.job.experiment.hash(),
            "numerics": self.numerics,
        }
        part = f"{self._checkpoint}.part.npz"
        checkpoints.save(f"{self._checkpoint}.npz" if record else part, arrays, meta)
        if record:
            checkpoints.remove(part)
        self.saved_at = time.monotonic()

    def _load(self, suffix: str) -> dict[str, Any] | None:
        path, variables = self._checkpoint + suffix, self._variables
        found = checkpoints.load(path) if self.due else None
        if found is None:
            return None
        arrays, meta = found
        shapes = {key: array.shape for key, array in arrays.items()}
        if shapes != {key: tuple(variable.shape) for key, variable in variables.items()}:
            raise UserError(
                f"{path}: the checkpoint belongs to a network that the code no longer builds. "
                "Return to the earlier code, or start the run again with --fresh."
            )
        for key, variable in variables.items():
            variable.assign(arrays[key])
        return meta

    def resume(self) -> dict[str, tuple[str, str]]:
        """Loads all checkpoints that fit this run, and returns :attr:`events.Resumed.differs`."""
        metas = []
        # The callbacks get every epoch again, because they count epochs. Keras's BackupAndRestore
        # would restore the weights, but not these counts.
        while meta := self._load(".npz"):
            metas.append(meta)
            self.shared_epochs += meta["trained_by"] != self.job.experiment.hash()
            self.end_epoch(meta["record"])
        if meta := self._load(".part.npz"):
            metas.append(meta)
            self.step, self.seconds = meta["step"], meta["seconds"]
        self.steps.push()
        differs = {
            key: (then, self.numerics.get(key, "none"))
            for meta in metas
            for key, then in sorted(meta["numerics"].items())
            if then != self.numerics.get(key)
        }
        if self.history or self.step:
            shared, due = self.shared_epochs, self.due
            resumed = events.Resumed(self.job, self.step, self.history, shared, differs, due)
            self.listener(resumed)
        return differs

    def _pause_if_asked(self, running: list[np.ndarray] | None = None) -> None:
        if self.should_stop():
            self.save(running=running)
            raise Interrupted

    def train_epoch(self) -> None:
        """Trains the rest of an epoch, validates, and writes a checkpoint."""
        job, network, epoch, rate = self.job, self.network, len(self.history) + 1, self.rate
        logs = self._train()
        # A run that is interrupted during validation resumes after the last training step. So its
        # checkpoint needs the training metrics, which validation overwrites.
        running = [np.asarray(variable) for variable in network.metrics_variables]
        began = time.monotonic()
        logs |= self._validate(running)
        validation_seconds = time.monotonic() - began

        record = {"epoch": epoch, **logs, "learning_rate": rate}
        record["images_per_second"] = self.epochs.training_images / self.seconds
        record["epoch_seconds"] = self.seconds + validation_seconds
        record["time"] = time.time()
        self.save(record)
        self.end_epoch(record)
        self.listener(events.Epoch(job, self.history))
        if self.rate != rate and "reduce_lr_on_plateau" in self.callbacks:
            self.listener(events.RateDropped(job, epoch, rate, self.rate))
        if network.stop_training:
            stop = self.callbacks["early_stopping"]
            self.listener(events.Stopped(job, epoch, stop.monitor, stop.best_epoch + 1))

    def _train(self) -> dict[str, float]:
        steps, epoch, total = self.steps, len(self.history), self.epochs.steps
        if self.step == 0:
            steps.reset()
        rate, shown = self.rate, 0.0
        began = time.monotonic() - self.seconds
        for first, batches in groups(self.epochs.batches(epoch), steps.per_call, self.step):
            self._pause_if_asked()
            steps.train(batches, first)
            self.step += len(batches)
            if time.monotonic() - shown > EVENT_SECONDS or self.step == total:
                logs = steps.logs() | {"learning_rate": rate}  # logs() waits for the device
                self.listener(events.Progress(self.job, epoch + 1, self.step, total, logs))
                shown = time.monotonic()
            now = time.monotonic()
            self.seconds = now - began
            if now - self.saved_at > CHECKPOINT_SECONDS:
                self.save()
                began = time.monotonic() - self.seconds  # so that saving does not count as training
        return steps.logs()

    def _validate(self, running: list[np.ndarray]) -> dict[str, float]:
        shown, total = 0.0, math.ceil(self.epochs.validation_images / EVALUATION_BATCH)
        self.steps.reset()
        for done, batch in enumerate(self.epochs.validation_batches(len(self.history))):
            if (now := time.monotonic()) - shown > EVENT_SECONDS:
                self.listener(events.Phase(self.job, "validating", done, total))
                shown = now
            self._pause_if_asked(running)
            self.steps.test(batch, done)
        return {f"val_{name}": value for name, value in self.steps.logs().items()}

    def end_epoch(self, record: dict[str, float]) -> None:
        """Passes a complete epoch's figures to the callbacks and starts the next epoch."""
        for callback in self.callbacks.values():
            callback.on_epoch_end(len(self.history), dict(record))
        self.history.append(record)
        self.step, self.seconds = 0, 0.0
        self._set_rate()


def train(
    experiment: Experiment,
    dataset: Dataset,
    seed: int,
    folder: str,
    listener: events.Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    make: Callable[[keras.Model, Experiment], Steps] | None = None,
) -> Outcome:
    """Trains one experiment, starting from its last checkpoint, and tests it once at the end.

    ``folder`` is the path or URL of a folder for checkpoints of this dataset, this seed and this
    :meth:`resnet.study.Experiment.trajectory`. ``should_stop`` is called between steps. ``make``
    returns the network's :class:`Steps`. The default is :func:`make_steps`.

    Raises:
        Interrupted: ``should_stop`` returned True; a checkpoint was written.
        UserError: a checkpoint is damaged, or the dataset is too small for the batch size.
    """
    images, labels, classes = dataset.x_train, dataset.y_train, len(dataset.classes)
    epochs = Epochs.make(experiment, len(images), images.shape[1:3], seed, labels)
    network = build(experiment, images.shape[1:], classes, seed, images)
    steps = make(network, experiment) if make else make_steps(network, images, labels, experiment)
    job = Job(experiment, seed)
    with contextlib.closing(steps):
        trainer = _Trainer(job, steps, epochs, str(folder), listener, should_stop)
        trainer.resume()
        while trainer.due:
            trainer.train_epoch()
    listener(events.Phase(job, "testing"))
    return _tested(trainer, dataset)


def _tested(trainer: _Trainer, dataset: Dataset) -> Outcome:
    """Restores the weights that the settings ask for, and tests them once."""
    network, history = trainer.network, trainer.history
    settings = trainer.job.experiment.training.early_stopping
    best_epoch = 1 + int(np.argmax([record["val_accuracy"] for record in history]))
    tested_epoch, stopped_epoch = len(history), 0
    if settings:
        stop = trainer.callbacks["early_stopping"]
        best_epoch = stop.best_epoch + 1
        stopped_epoch = stop.stopped_epoch + 1 if network.stop_training else 0
        restore = settings.restore_best_weights
        if restore == "always" or (restore == "when_stopped" and stopped_epoch):
            stop.on_train_end()
            tested_epoch = best_epoch
    predicted = trainer.steps.probabilities(dataset.x_test)
    of_truth = predicted[np.arange(len(predicted)), dataset.y_test]
    return Outcome(
        network=network,
        history=history,
        best_epoch=best_epoch,
        tested_epoch=tested_epoch,
        stopped_epoch=stopped_epoch,
        shared_epochs=trainer.shared_epochs,
        probabilities=predicted,
        test_loss=float(-np.log(np.maximum(of_truth, keras.config.epsilon())).mean()),
        test_accuracy=float((predicted.argmax(axis=1) == dataset.y_test).mean()),
    )
