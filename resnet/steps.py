"""Compiled training and evaluation steps over images that stay where the network is.

The mathematics is Keras's own ``train_step`` and ``test_step``; here images are picked by index,
scaled and augmented inside the compiled program, so that only positions and transforms travel.
TensorFlow runs a step a call, JAX on a GPU many.
"""

import contextlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import groupby, islice
from typing import Any

import keras
import numpy as np
from keras import ops

from resnet import augment, config, machine

EVALUATION_BATCH = 256  # larger than the training batch: inference does not depend on it

Batch = tuple[np.ndarray, np.ndarray | None]
"""int32 (n,) positions in the images; float32 (n, 8) transforms or None."""


class Steps:
    """One network's compiled steps over one set of images.

    Args:
        network: built; compiled here with Adam and the categorical cross-entropy.
        images: uint8 (n, height, width, channels), 0..255.
        labels: integer (n,) class indices.
        experiment: says what pixels are divided by, and how the optimizer is set.
    """

    per_call = 1
    """How many steps a call of :meth:`train` should be given."""

    def __init__(
        self,
        network: keras.Model,
        images: np.ndarray,
        labels: np.ndarray,
        experiment: config.Experiment,
    ):
        self.network = network
        network.compile(
            optimizer=keras.optimizers.Adam(experiment.training.learning_rate),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        )
        # a quarter of float32's memory: all of CIFAR-10 is 154 MB on the device
        self._images = ops.convert_to_tensor(images, "uint8")
        self._labels = ops.one_hot(labels, network.output.shape[-1])  # (n, classes)
        self._pixel_scale = experiment.data.pixel_scale
        # loss, metrics and optimizer make variables on first use, which must not be while tracing
        some = self._labels[:1]
        network.compute_loss(y=some, y_pred=some)
        network.compute_metrics(None, some, some)
        network.optimizer.build(network.trainable_variables)
        self._compile()
        self.reset()

    def _compile(self) -> None:
        raise NotImplementedError

    def _look_up(self, images: Any, labels: Any, positions: Any, transforms: Any) -> tuple:
        # (batch, height, width, channels) in [0, 1]
        x = ops.cast(ops.take(images, positions, axis=0), "float32") / self._pixel_scale
        if transforms is not None:
            x = augment.apply(x, transforms)
        return x, ops.take(labels, positions, axis=0)

    def reset(self) -> None:
        """Starts the running loss and accuracy anew."""
        self.network.reset_metrics()
        self.push()

    def logs(self) -> dict[str, float]:
        """Running ``loss`` and ``accuracy`` since :meth:`reset`."""
        self.pull()
        return {k: float(v) for k, v in self.network.get_metrics_result().items()}

    def train(self, batches: list[Batch]) -> None:
        """One optimizer step for each batch; all are of one size."""
        raise NotImplementedError

    def test(self, batch: Batch) -> None:
        """Adds one batch to the running loss and accuracy."""
        raise NotImplementedError

    def pull(self) -> None:
        """Brings the network's variables up to date with the steps done."""

    def push(self) -> None:
        """Makes the next steps start from the network's variables as they are now."""


class _TensorFlowSteps(Steps):
    def _compile(self) -> None:
        import tensorflow as tf

        def step(of_network: Callable) -> Callable:
            def run(positions: Any, transforms: Any) -> Any:
                return of_network(self._look_up(self._images, self._labels, positions, transforms))

            return tf.function(run, reduce_retracing=True, autograph=False)

        self._train = step(self.network.train_step)
        self._test = step(self.network.test_step)

    def train(self, batches: list[Batch]) -> None:
        for positions, transforms in batches:
            self._train(positions, transforms)

    def test(self, batch: Batch) -> None:
        self._test(*batch)


class _JaxSteps(Steps):
    """Many steps in one program: at batch 32 a GPU is done before Python has called again."""

    def _compile(self) -> None:
        import jax

        # inside a loop XLA's convolutions on a CPU take five times as long
        self.per_call = 1 if jax.default_backend() == "cpu" else 50

        @jax.jit
        def train(state: Any, images: Any, labels: Any, positions: Any, transforms: Any) -> Any:
            def step(state: Any, batch: Any) -> tuple[Any, None]:
                _, state = self.network.train_step(state, self._look_up(images, labels, *batch))
                return state, None

            batches = (positions, transforms)
            if len(positions) == 1:
                return step(state, jax.tree.map(lambda values: values[0], batches))[0]
            return jax.lax.scan(step, state, batches)[0]

        @jax.jit
        def test(state: Any, images: Any, labels: Any, positions: Any, transforms: Any) -> Any:
            trainable, fixed, _, metrics = state
            data = self._look_up(images, labels, positions, transforms)
            _, (_, _, metrics) = self.network.test_step((trainable, fixed, metrics), data)
            return metrics

        self._train, self._test = train, test

    @property
    def _variables(self) -> tuple[list, ...]:
        network = self.network
        return (
            network.trainable_variables,
            network.non_trainable_variables,
            network.optimizer.variables,
            network.metrics_variables,
        )

    def pull(self) -> None:
        for variables, values in zip(self._variables, self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def push(self) -> None:
        self._state = tuple([v.value for v in variables] for variables in self._variables)

    def train(self, batches: list[Batch]) -> None:
        positions = np.stack([positions for positions, _ in batches])
        transforms = [t for _, t in batches if t is not None]
        stacked = np.stack(transforms) if transforms else None
        self._state = self._train(self._state, self._images, self._labels, positions, stacked)

    def test(self, batch: Batch) -> None:
        metrics = self._test(self._state, self._images, self._labels, *batch)
        self._state = (*self._state[:3], metrics)


def make_steps(*arguments: Any, **options: Any) -> Steps:
    """:class:`Steps` for the backend that Keras runs on; the arguments are the class's."""
    if keras.backend.backend() == "jax":
        return _JaxSteps(*arguments, **options)
    import tensorflow as tf

    # the same program on the same machine then gives the same bits; it costs 4 % of a step on a CPU
    tf.config.experimental.enable_op_determinism()
    return _TensorFlowSteps(*arguments, **options)


def numerics() -> dict[str, str]:
    """What a run's bits depend on besides experiment, data and seed.

    Sums are split by the number of threads and by the width of the vector registers. On rung 1's
    quick profile one thread instead of two moved the first epoch's loss from 1.569 to 1.604, and
    AVX2 instead of AVX-512 to 1.527.

    Returns:
        ``backend``, ``device``, ``threads`` (of one operation), ``instruction_set`` (the newest
        that the processor has, with the variables that withhold it from the backend), and
        ``version.<package>``.
    """
    limits = {"tensorflow": ("ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"), "jax": ("XLA_FLAGS",)}
    backend = keras.backend.backend()
    facts = {
        "backend": backend,
        "device": _device(),
        "threads": str(_threads()),
        "instruction_set": " ".join(
            [machine.instruction_set()]
            + [
                f"{name}={os.environ[name]}"
                for name in limits.get(backend, ())
                if name in os.environ
            ]
        ),
        "version.python": platform.python_version(),
    }
    for package in ("keras", "tensorflow", "jax", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts[f"version.{package}"] = metadata.version(package)
    return facts


def _threads() -> int:
    if keras.backend.backend() != "tensorflow":
        return machine.cores()
    import tensorflow as tf

    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or machine.cores()


def _device() -> str:
    if keras.backend.backend() == "jax":
        import jax

        kind = jax.devices()[0]
        if kind.platform != "cpu":
            return kind.device_kind
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return f"{machine.processor()}, {os.cpu_count()} cores"


def groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Splits batches into runs of at most ``size``, each of batches of one length."""
    for _, same in groupby(batches, key=lambda batch: len(batch[0])):
        while group := list(islice(same, size)):
            yield group


def probabilities(network: keras.Model, images: np.ndarray, pixel_scale: float) -> np.ndarray:
    """Class probabilities in inference mode.

    Args:
        network: from images in [0, 1] to probabilities.
        images: uint8 (n, height, width, channels), 0..255.
        pixel_scale: pixels are divided by it.

    Returns:
        float32 (n, classes).
    """
    scaled = images.astype("float32") / np.float32(pixel_scale)
    return network.predict(scaled, batch_size=EVALUATION_BATCH, verbose=0)
