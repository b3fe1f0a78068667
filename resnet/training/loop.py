"""One experiment in, one trained and tested model out; exact resume.

A run killed at any instant and started again ends with the same weights, curves, learning-rate
drops and test accuracy as one never killed, bit for bit on the same machine: every random draw
comes from (seed, epoch, position) or from state in the checkpoint, and the callbacks, whose
counters and best weights Keras's ``BackupAndRestore`` forgets, see every epoch again.
"""

import contextlib
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
"""A checkpoint is written after each epoch, and within an epoch that often."""


@dataclass(frozen=True)
class Outcome:
    """A finished training.

    ``history`` has one record an epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy,
    learning_rate, images_per_second, epoch_seconds, and ``time``, when it ended (Unix, s).
    ``best_epoch`` is the best by what early stopping monitors, else by val_accuracy;
    ``tested_epoch`` the one whose weights were tested; ``stopped_epoch`` is 0 if early stopping
    did not trigger; ``shared_epochs`` were trained by another run.
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
        """Returns the figures a reader compares, each a metric of its own."""
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
    """Keras's own callbacks with the experiment's settings, attached and begun.

    Args:
        training: the experiment's settings.
        network: compiled.

    Returns:
        ``early_stopping`` and ``reduce_lr_on_plateau``, those that the experiment has, in the
        order in which they act.
    """
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
            callback.min_delta *= 1 if higher else -1  # as Keras does when it chooses one
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
    """Keras's schedule of that name, of the number of epochs done; None if none is named."""
    if not (named := training.schedule):
        return None
    settings = named.settings
    if named.name == "piecewise_constant":
        # epochs done, where Keras counts the step that it is at
        settings["boundaries"] = [boundary - 1 for boundary in settings["boundaries"]]
    else:
        settings["initial_learning_rate"] = training.learning_rate
    return signatures.keras_class(keras.optimizers.schedules, named.name)(**settings)


def _mode(monitor: str) -> str:
    return "max" if monitor.endswith("accuracy") else "min"


class _Run:
    """A training in progress.

    After every epoch its state is kept under the epoch's number and the learning rates so far:
    where experiments differ in nothing else that shapes the weights, they share their states as
    long as they share their rates. Going on after a stop and sharing another run's training are
    the same: the states that there are are walked through, and the callbacks see what they saw.
    """

    def __init__(
        self, experiment: Experiment, steps: Steps, callbacks: dict[str, Any], folder: str
    ):
        self.experiment = experiment
        self.steps = steps
        self.callbacks = callbacks
        self.folder = folder
        self.history: events.History = []
        self.step = 0  # done in the current epoch
        self.seconds = 0.0  # spent on them
        self.shared_epochs = 0  # which another run has trained
        self.saved_at = time.monotonic()
        self.numerics = numerics(steps.lanes)
        self._schedule = _schedule(experiment.training)
        self._set_rate()

    @property
    def due(self) -> bool:
        """Whether there is a further epoch."""
        more = len(self.history) < self.experiment.training.epochs
        return more and not self.steps.network.stop_training

    @property
    def _variables(self) -> list:
        network = self.steps.network
        return [*network.variables, *network.optimizer.variables, *network.metrics_variables]

    @property
    def _state(self) -> str:
        """Where the epoch in progress is kept, without the suffix."""
        rates = [record["learning_rate"] for record in self.history]
        rates.append(learning_rate(self.steps.network))
        return f"{self.folder}/{checkpoints.name(rates)}"

    def save(
        self, record: dict[str, float] | None = None, running: list[np.ndarray] | None = None
    ) -> None:
        """Keeps the epoch in progress, or with its record the whole one.

        Args:
            record: the epoch's.
            running: the running figures that belong to the last step, where that is not now.
        """
        self.steps.pull()
        if running:
            for variable, value in zip(self.steps.network.metrics_variables, running, strict=True):
                variable.assign(value)
        arrays = {f"variable_{i}": np.asarray(v) for i, v in enumerate(self._variables)}
        meta = {
            "record": record,
            "step": self.step,
            "seconds": self.seconds,
            "trained_by": self.experiment.hash(),
            "numerics": self.numerics,
        }
        part = f"{self._state}.part.npz"
        checkpoints.save(f"{self._state}.npz" if record else part, arrays, meta)
        if record:
            checkpoints.remove(part)
        self.saved_at = time.monotonic()

    def follow(self) -> dict[str, tuple[str, str]]:
        """Goes as far as this training, or one that it shares, ever came.

        Returns:
            In what ``numerics`` were different then, as (then, now).
        """
        differs: dict[str, tuple[str, str]] = {}

        def restored(suffix: str) -> dict[str, Any] | None:
            found = checkpoints.load(self._state + suffix) if self.due else None
            if found is None:
                return None
            arrays, meta = found
            try:
                for i, variable in enumerate(self._variables):
                    variable.assign(arrays.pop(f"variable_{i}"))
            except (KeyError, ValueError):
                arrays = {"": np.empty(0)}
            if arrays:
                raise UserError(
                    f"{self._state}{suffix}: the checkpoint is of another network than the code "
                    "builds now; go back to that code, or --fresh starts the run anew"
                )
            now = self.numerics  # some states are older than these
            also = {key: now[key] for key in ("precision", "git_commit", "git_dirty")}
            then = {"lanes": "1"} | also | meta["numerics"]
            for key in sorted(then.keys() | now.keys()):
                if then.get(key) != now.get(key):
                    differs[key] = then.get(key, "none"), now.get(key, "none")
            return meta

        # Keras's BackupAndRestore keeps weights and forgets what callbacks count: here they see
        # every epoch again, as long as its state is there, and count what they counted.
        while meta := restored(".npz"):
            self.shared_epochs += meta["trained_by"] != self.experiment.hash()
            self.end_epoch(meta["record"])
        if meta := restored(".part.npz"):
            self.step, self.seconds = meta["step"], meta["seconds"]
        self.steps.push()
        return differs

    def end_epoch(self, record: dict[str, float]) -> None:
        """Lets the callbacks act on a whole epoch."""
        for callback in self.callbacks.values():
            callback.on_epoch_end(len(self.history), dict(record))
        self.history.append(record)
        self.step, self.seconds = 0, 0.0
        self._set_rate()

    def _set_rate(self) -> None:
        """Sets the learning rate of the epoch that begins, if there is a schedule."""
        if self._schedule:
            rate = self._schedule(np.float32(len(self.history)))
            self.steps.network.optimizer.learning_rate.assign(rate)


def train(
    experiment: Experiment,
    dataset: Dataset,
    seed: int,
    folder: str,
    listener: events.Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    make: Callable[[keras.Model, Experiment], Steps] | None = None,
) -> Outcome:
    """Trains one experiment, from where it was or another has come, and tests it once at the end.

    Args:
        experiment: resolved.
        dataset: images and labels.
        seed: any non-negative integer.
        folder: where the states lie, a path or URL. It must belong to this dataset, seed and
            :meth:`resnet.study.Experiment.trajectory`, and stays when training has ended.
        listener: is told what happens.
        should_stop: asked between steps; True writes a checkpoint and raises ``Interrupted``.
        make: makes the compiled steps of the network; by default those of this one alone.

    Returns:
        The trained network with its curves and test figures.

    Raises:
        Interrupted: ``should_stop`` said so.
        UserError: the checkpoint is damaged, or the dataset too small for the batch size.
    """
    job = Job(experiment, seed)
    images, labels, classes = dataset.x_train, dataset.y_train, len(dataset.classes)
    epochs = Epochs.make(experiment, len(images), images.shape[1:3], seed, labels)
    network = build(experiment, images.shape[1:], classes, seed, images)
    made = make(network, experiment) if make else None
    steps = made or make_steps(network, images, labels, experiment)
    with contextlib.closing(steps):
        run = _Run(experiment, steps, make_callbacks(experiment.training, network), str(folder))
        differs = run.follow()
        if run.history or run.step:
            listener(
                events.Resumed(job, run.step, run.history, run.shared_epochs, differs, run.due)
            )
        while run.due:
            _epoch(job, run, epochs, listener, should_stop)
    listener(events.Phase(job, "testing"))
    return _finish(experiment, dataset, run)


def _epoch(
    job: Job,
    run: _Run,
    epochs: Epochs,
    listener: events.Listener,
    should_stop: Callable[[], bool],
) -> None:
    """Trains and validates one epoch, or what is left of it, and saves it."""
    network, epoch = run.steps.network, len(run.history)

    def pause_if_asked(running: list[np.ndarray] | None = None) -> None:
        if should_stop():
            run.save(running=running)
            raise Interrupted

    rate = learning_rate(network)
    logs = _train_epoch(job, run, epochs, listener, pause_if_asked)
    # A stop from here on goes back to the end of the last step, which the running figures of
    # training belong to: they are kept while those of validation take their place.
    kept = [np.asarray(variable) for variable in network.metrics_variables]
    began = time.monotonic()
    logs |= _validate(job, run, epochs, listener, lambda: pause_if_asked(kept))
    validation_seconds = time.monotonic() - began

    record = {"epoch": epoch + 1, **logs, "learning_rate": rate}
    record["images_per_second"] = epochs.training_images / run.seconds
    record["epoch_seconds"] = run.seconds + validation_seconds
    record["time"] = time.time()
    run.save(record)
    run.end_epoch(record)
    listener(events.Epoch(job, run.history))
    new_rate = learning_rate(network)
    if new_rate != rate and "reduce_lr_on_plateau" in run.callbacks:
        listener(events.RateDropped(job, epoch + 1, rate, new_rate))
    if network.stop_training:
        stop = run.callbacks["early_stopping"]
        listener(events.Stopped(job, epoch + 1, stop.monitor, stop.best_epoch + 1))


def _train_epoch(
    job: Job,
    run: _Run,
    epochs: Epochs,
    listener: events.Listener,
    pause_if_asked: Callable[[], None],
) -> dict[str, float]:
    """The training steps of an epoch that are left; its running figures at the end."""
    steps, epoch = run.steps, len(run.history)
    rate = learning_rate(steps.network)
    if run.step == 0:
        steps.reset()
    began, shown = time.monotonic() - run.seconds, 0.0
    for first, batches in groups(epochs.batches(epoch), steps.per_call, run.step):
        pause_if_asked()
        steps.train(batches, first)
        run.step += len(batches)
        if time.monotonic() - shown > 0.2 or run.step == epochs.steps:
            logs = steps.logs() | {"learning_rate": rate}  # waits for the device
            listener(events.Progress(job, epoch + 1, run.step, epochs.steps, logs))
            shown = time.monotonic()
        now = time.monotonic()
        run.seconds = now - began
        if now - run.saved_at > CHECKPOINT_SECONDS:
            run.save()
            began = time.monotonic() - run.seconds  # saving is not training
    return steps.logs()


def _validate(
    job: Job,
    run: _Run,
    epochs: Epochs,
    listener: events.Listener,
    pause_if_asked: Callable[[], None],
) -> dict[str, float]:
    """Its figures on an epoch's validation images, as ``val_loss`` and ``val_accuracy``."""
    shown, total = 0.0, math.ceil(epochs.validation_images / EVALUATION_BATCH)
    run.steps.reset()
    for done, batch in enumerate(epochs.validation_batches(len(run.history))):
        if (now := time.monotonic()) - shown > 0.2:
            listener(events.Phase(job, "validating", done, total))
            shown = now
        pause_if_asked()
        run.steps.test(batch, done)
    return {f"val_{name}": value for name, value in run.steps.logs().items()}


def learning_rate(network: keras.Model) -> float:
    """Returns the optimizer's rate at the moment."""
    return float(keras.ops.convert_to_numpy(network.optimizer.learning_rate))


def _finish(experiment: Experiment, dataset: Dataset, run: _Run) -> Outcome:
    """Restores the weights the settings ask for and looks at the test set, once."""
    network, history = run.steps.network, run.history
    settings, stop = experiment.training.early_stopping, run.callbacks.get("early_stopping")
    best_epoch = 1 + int(np.argmax([record["val_accuracy"] for record in history]))
    tested_epoch = len(history)
    stopped_epoch = 0
    if settings and stop:
        best_epoch = stop.best_epoch + 1
        stopped_epoch = stop.stopped_epoch + 1 if network.stop_training else 0
        if settings.restore_best_weights == "always" or (
            settings.restore_best_weights == "when_stopped" and stopped_epoch
        ):
            stop.on_train_end()
            tested_epoch = best_epoch
    predicted = run.steps.probabilities(dataset.x_test)
    of_truth = predicted[np.arange(len(predicted)), dataset.y_test]
    return Outcome(
        network=network,
        history=history,
        best_epoch=best_epoch,
        tested_epoch=tested_epoch,
        stopped_epoch=stopped_epoch,
        shared_epochs=run.shared_epochs,
        probabilities=predicted,
        test_loss=float(-np.log(np.maximum(of_truth, keras.config.epsilon())).mean()),
        test_accuracy=float((predicted.argmax(axis=1) == dataset.y_test).mean()),
    )
