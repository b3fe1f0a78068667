"""One experiment in, one trained and tested model out; exact resume.

A run killed at any instant and started again ends with the same weights, curves, learning-rate
drops and test accuracy as one never killed, bit for bit on the same machine: every random draw
comes from (seed, epoch, position) or from state in the checkpoint, and the callbacks, whose
counters and best weights Keras's ``BackupAndRestore`` forgets, see every epoch again.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from resnet import Interrupted, UserError, augment, checkpoints, config, events, models
from resnet.data import Dataset
from resnet.numerics import numerics
from resnet.program import make_steps
from resnet.steps import EVALUATION_BATCH, Batch, Steps, groups

CHECKPOINT_SECONDS = 60.0
"""A checkpoint is written after each epoch, and within an epoch that often."""

# Streams of random numbers; 0 is the weights' (see models._initialize).
_SHUFFLE, _AUGMENT, _VALIDATION_SHUFFLE, _VALIDATION_AUGMENT = 1, 2, 3, 4


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
        """The figures a reader compares, each a metric of its own."""
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
            "multiply_adds": models.multiply_adds(self.network),
        }


def split(n: int, validation: config.Validation) -> tuple[np.ndarray, np.ndarray]:
    """Which images train and which validate.

    ``ImageDataGenerator(validation_split=f)`` holds out the first ``int(f n)`` images;
    ``fit(validation_split=f)`` the last ``n - int(n (1 - f))``.

    Args:
        n: number of training images.
        validation: the experiment's settings.

    Returns:
        int32 positions (training, validation).
    """
    positions = np.arange(n, dtype="int32")
    if validation.subset == "first":
        held_out = int(n * validation.fraction)
        return positions[held_out:], positions[:held_out]
    kept = int(n * (1 - validation.fraction))
    return positions[:kept], positions[kept:]


@dataclass(frozen=True)
class Plan:
    """Which image goes where in every epoch, as a function of (seed, epoch, position) alone."""

    experiment: config.Experiment
    seed: int
    image_shape: tuple[int, int]
    train: np.ndarray
    validation: np.ndarray

    @classmethod
    def make(
        cls, experiment: config.Experiment, n: int, image_shape: tuple[int, int], seed: int
    ) -> "Plan":
        """Plans the epochs of an experiment over ``n`` training images.

        Raises:
            UserError: the images do not fill a training and a validation batch.
        """
        plan = cls(experiment, seed, image_shape, *split(n, experiment.data.validation))
        batch = experiment.training.batch_size
        if plan.steps < 1 or plan.validation_images < 1:
            raise UserError(
                f"training.batch_size: {batch} is too large for {len(plan.train)} training and "
                f"{len(plan.validation)} validation images; choose a smaller one, or more images"
            )
        return plan

    def same_classes(self, labels: np.ndarray) -> bool:
        """Whether the classes trained on, of labels (n,), are those that validate."""
        train, validation = (np.unique(labels[part]) for part in (self.train, self.validation))
        return np.array_equal(train, validation)

    @property
    def steps(self) -> int:
        """Training steps an epoch; ``n // batch_size``, or with the remainder as a last one."""
        full, rest = divmod(len(self.train), self.experiment.training.batch_size)
        return full if self.experiment.data.validation.drop_remainder else full + bool(rest)

    @property
    def validation_images(self) -> int:
        """Images in an epoch's validation figure (312 x 32 of 10,000 in the study)."""
        count, batch = len(self.validation), self.experiment.training.batch_size
        return count // batch * batch if self.experiment.data.validation.drop_remainder else count

    def batches(self, epoch: int) -> list[Batch]:
        """The training batches of an epoch: positions and transforms."""
        order = self._generator(epoch, _SHUFFLE).permutation(self.train)
        transforms = self._transforms(epoch, _AUGMENT, len(order))
        size = self.experiment.training.batch_size
        return list(_slices(order, transforms, size))[: self.steps]

    def validation_batches(self, epoch: int) -> Iterator[Batch]:
        """The validation images of an epoch, in batches as large as is convenient.

        ``ImageDataGenerator.flow`` shuffles its validation images too, so which ones the study
        leaves out changes from epoch to epoch.
        """
        validation = self.experiment.data.validation
        order = self.validation
        if validation.drop_remainder:
            order = self._generator(epoch, _VALIDATION_SHUFFLE).permutation(order)
        order = order[: self.validation_images]
        transforms = (
            self._transforms(epoch, _VALIDATION_AUGMENT, len(order))
            if validation.augmented
            else None
        )
        return _slices(order, transforms, EVALUATION_BATCH)

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, stream])

    def _transforms(self, epoch: int, stream: int, n: int) -> np.ndarray | None:
        augmentation = self.experiment.data.augmentation
        if augmentation is None:
            return None
        parameters = augment.draw(augmentation, self._generator(epoch, stream), n, self.image_shape)
        return augment.projective(parameters, self.image_shape)


def _slices(order: np.ndarray, transforms: np.ndarray | None, size: int) -> Iterator[Batch]:
    for start in range(0, len(order), size):
        part = slice(start, start + size)
        yield order[part], None if transforms is None else transforms[part]


def make_callbacks(training: config.Training, network: keras.Model) -> dict[str, Any]:
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
        callbacks["early_stopping"] = keras.callbacks.EarlyStopping(
            **stop.model_dump(exclude={"restore_best_weights"}),
            mode=_mode(stop.monitor),
            restore_best_weights=stop.restore_best_weights != "never",
        )
    if reduce := training.reduce_lr_on_plateau:
        callbacks["reduce_lr_on_plateau"] = keras.callbacks.ReduceLROnPlateau(
            **reduce.model_dump(), mode=_mode(reduce.monitor)
        )
    network.stop_training = False
    for callback in callbacks.values():
        callback.set_model(network)
        callback.on_train_begin()
    return callbacks


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
        self, experiment: config.Experiment, steps: Steps, callbacks: dict[str, Any], folder: str
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
            for i, variable in enumerate(self._variables):
                variable.assign(arrays[f"variable_{i}"])
            now = self.numerics  # some states are older than these two
            then = {"lanes": "1", "precision": now["precision"]} | meta["numerics"]
            for key in sorted(then.keys() | now.keys()):
                if then.get(key) != now.get(key):
                    differs[key] = then.get(key, "none"), now.get(key, "none")
            return meta

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


def train(
    experiment: config.Experiment,
    dataset: Dataset,
    seed: int,
    folder: str,
    listener: events.Listener = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    make: Callable[[keras.Model, config.Experiment], Steps] | None = None,
) -> Outcome:
    """Trains one experiment, from where it was or another has come, and tests it once at the end.

    Args:
        experiment: resolved.
        dataset: images and labels.
        seed: any non-negative integer.
        folder: where the states lie, a path or URL. It must belong to this dataset, seed and
            :meth:`resnet.config.Experiment.trajectory`, and stays when training has ended.
        listener: is told what happens.
        should_stop: asked between steps; True writes a checkpoint and raises ``Interrupted``.
        make: makes the compiled steps of the network; by default those of this one alone.

    Returns:
        The trained network with its curves and test figures.

    Raises:
        Interrupted: ``should_stop`` said so.
        UserError: the checkpoint is damaged, or the dataset too small for the batch size.
    """
    job = config.Job(experiment, seed)
    plan = Plan.make(experiment, len(dataset.x_train), dataset.x_train.shape[1:3], seed)
    network = models.build(experiment.model, dataset.x_train.shape[1:], len(dataset.classes), seed)
    if make:
        steps = make(network, experiment)
    else:
        steps = make_steps(network, dataset.x_train, dataset.y_train, experiment)
    with contextlib.closing(steps):
        run = _Run(experiment, steps, make_callbacks(experiment.training, network), str(folder))
        differs = run.follow()
        if run.history or run.step:
            listener(
                events.Resumed(job, run.step, run.history, run.shared_epochs, differs, run.due)
            )
        while run.due:
            _epoch(job, run, plan, listener, should_stop)
    listener(events.Phase(job, "testing"))
    return _finish(experiment, dataset, run)


def _epoch(
    job: config.Job,
    run: _Run,
    plan: Plan,
    listener: events.Listener,
    should_stop: Callable[[], bool],
) -> None:
    """Trains and validates one epoch, or what is left of it, and saves it."""
    steps, network = run.steps, run.steps.network
    epoch = len(run.history)

    def pause_if_asked(running: list[np.ndarray] | None = None) -> None:
        if should_stop():
            run.save(running=running)
            raise Interrupted

    rate = learning_rate(network)
    if run.step == 0:
        steps.reset()
    began, told = time.monotonic() - run.seconds, 0.0
    for first, batches in groups(plan.batches(epoch), steps.per_call, run.step):
        pause_if_asked()
        steps.train(batches, first)
        run.step += len(batches)
        if time.monotonic() - told > 0.2 or run.step == plan.steps:
            logs = steps.logs() | {"learning_rate": rate}  # waits for the device
            listener(events.Progress(job, epoch + 1, run.step, plan.steps, logs))
            told = time.monotonic()
        now = time.monotonic()
        run.seconds = now - began
        if now - run.saved_at > CHECKPOINT_SECONDS:
            run.save()
            began = time.monotonic() - run.seconds  # saving is not training
    logs = steps.logs()

    # A stop from here on goes back to the end of the last step, which the running figures of
    # training belong to: they are kept while those of validation take their place.
    kept = [np.asarray(variable) for variable in network.metrics_variables]
    began, told = time.monotonic(), 0.0
    total = math.ceil(plan.validation_images / EVALUATION_BATCH)
    steps.reset()
    for done, batch in enumerate(plan.validation_batches(epoch)):
        if (now := time.monotonic()) - told > 0.2:
            listener(events.Phase(job, "validating", done, total))
            told = now
        pause_if_asked(kept)
        steps.test(batch, done)
    logs |= {f"val_{name}": value for name, value in steps.logs().items()}
    validation_seconds = time.monotonic() - began

    images = min(plan.steps * plan.experiment.training.batch_size, len(plan.train))
    record = {"epoch": epoch + 1, **logs, "learning_rate": rate}
    record["images_per_second"] = images / run.seconds
    record["epoch_seconds"] = run.seconds + validation_seconds
    record["time"] = time.time()
    run.save(record)
    run.end_epoch(record)
    listener(events.Epoch(job, run.history))
    new_rate = learning_rate(network)
    if new_rate != rate:
        listener(events.RateDropped(job, epoch + 1, rate, new_rate))
    if network.stop_training:
        stop = run.callbacks["early_stopping"]
        listener(events.Stopped(job, epoch + 1, stop.monitor, stop.best_epoch + 1))


def learning_rate(network: keras.Model) -> float:
    """The optimizer's rate at the moment."""
    return float(keras.ops.convert_to_numpy(network.optimizer.learning_rate))


def _finish(experiment: config.Experiment, dataset: Dataset, run: _Run) -> Outcome:
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
