"""Compiled steps on JAX: one program trains several networks of the same shape, one per lane.

A training step of the study's networks has hundreds of kernels, each too small to fill a GPU. So
weights, optimizers, metrics and dropout states have a leading axis of lanes (``jax.vmap``). All
lanes share one copy of the images. Each lane has its own :class:`Steps` and thread. A run's exact
results depend on the number of lanes, but never on what the other lanes train.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from keras import ops

from resnet.network import augmentation, keras, products
from resnet.study import Experiment
from resnet.training.numerics import accelerator
from resnet.training.steps import EVALUATION_BATCH, Batch, Steps, TensorFlowSteps, look_up

STEPS = 50
"""Steps per call on an accelerator, which would idle if Python started every step separately."""
PATIENCE = 5.0
"""Longest time in seconds that lanes wait for a missing lane."""

Place = tuple[bool, int, int]
"""A call's place in an epoch: whether it validates, and its first batch's number and size."""


@dataclass
class _Call:
    place: Place
    batches: list[Batch]
    error: Exception | None = None


class Program:
    """A compiled training step and a compiled validation step for several networks.

    One call serves all lanes at the same place in their epochs. The other lanes keep their state.
    If lanes are at different places, the next call serves the previous call's place. If no lane is
    there, it serves the nearest later place; if no place is later, the earliest place. Lanes wait
    at most ``PATIENCE`` seconds for a missing lane, such as one whose run cannot reach the store.

    Images: uint8 (n, height, width, channels). Labels: integers (n,). ``scale`` divides the pixels.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: int,
        scale: float,
        lanes: int = 1,
        fill_mode: str = "nearest",
    ):
        import jax

        self.lanes = lanes
        # On a CPU, XLA's convolutions take five times as long inside a loop.
        self.per_call = STEPS if accelerator() else 1
        self.products = lanes > 1 or accelerator() is not None
        self._scale = scale
        apply = augmentation.sample if self.products else augmentation.apply
        self._apply = partial(apply, fill_mode=fill_mode)
        data = ops.convert_to_tensor(images, "uint8"), ops.one_hot(labels, classes)
        self._data = jax.device_put(data, accelerator())
        self._meeting = threading.Condition()
        self._state: list[Any] = []  # values of variables, with an axis of lanes if lanes > 1
        self._fetched: tuple[list[Any], list[np.ndarray]] = [], []
        self._calls: dict[int, _Call] = {}
        self._awaited: set[int] = set()  # lanes of the last call
        self._coming: set[int] = set()  # taken lanes that have not made a call yet
        self._free = list(reversed(range(lanes)))
        self._last: Place | None = None
        self._since = 0.0

    @property
    def free(self) -> int:
        return len(self._free)

    def lane(self) -> "Lane":
        """Waits for a free lane and takes it for one run."""
        return Lane(self)

    def take(self) -> int:
        with self._meeting:
            self._meeting.wait_for(lambda: self._free)
            self._coming.add(number := self._free.pop())
            return number

    def give_back(self, lane: int) -> None:
        with self._meeting:
            self._awaited.discard(lane)
            self._coming.discard(lane)
            self._free.append(lane)
            self._meeting.notify_all()

    def build(self, network: keras.Model, sizes: list[int]) -> None:
        """Compiles the steps of a network.

        ``sizes``: numbers of weights, other variables, optimizer variables and metric variables.
        """
        import jax
        import jax.numpy as jnp

        ends = np.cumsum(sizes).tolist()

        def parts(state: list) -> list[list]:
            return [state[end - size : end] for size, end in zip(sizes, ends, strict=True)]

        def train(state: list, data: tuple) -> list:
            _, after = network.train_step(parts(state), data)
            return [*chain(*after)]

        def test(state: list, data: tuple) -> list:
            weights, others, _, metrics = parts(state)
            _, (_, _, metrics) = network.test_step((weights, others, metrics), data)
            return metrics

        def compiled(one: Callable[[list, tuple], list]) -> Callable:
            """Compiles the step ``one``, which returns a state or, in validation, only metrics."""

            def step(state: list, data: tuple[Any, Any], active: Any, at: Any, how: Any) -> list:
                after = one(state, look_up(*data, at, how, self._scale, self._apply))
                if self.lanes == self.per_call == 1:
                    return after
                before = state[len(state) - len(after) :]
                return [jnp.where(active, new, old) for new, old in zip(after, before, strict=True)]

            def of_lanes(state: list, data: tuple, batch: tuple) -> list:
                with products(self.products):
                    if self.lanes > 1:
                        return jax.vmap(step, (0, None, 0, 0, 0))(state, data, *batch)
                    return step(state, data, *jax.tree.map(lambda values: values[0], batch))

            def steps(state: list, data: tuple, batches: tuple) -> list:
                if len(batches[0]) == 1:
                    return of_lanes(state, data, jax.tree.map(lambda values: values[0], batches))
                return jax.lax.scan(lambda s, b: (of_lanes(s, data, b), None), state, batches)[0]

            return jax.jit(steps)

        @jax.jit
        def put(arrays: list, values: list, lane: Any) -> list:
            return [a.at[lane].set(v) for a, v in zip(arrays, values, strict=True)]

        @jax.jit
        def predict(weights: list, others: list, x: Any) -> Any:
            with products(self.products):
                return network.stateless_call(weights, others, x, training=False)[0]

        self._train, self._test = compiled(train), compiled(test)
        self._put, self.predict = put, predict

    def enter(self, lane: int, network: keras.Model, values: list[Any], sizes: list[int]) -> None:
        """Sets a lane's initial state. The first lane to enter also builds the program's steps."""
        import jax
        import jax.numpy as jnp

        with self._meeting:
            if not self._state:
                self.build(network, sizes)
                like = [jnp.stack([v] * self.lanes) if self.lanes > 1 else v for v in values]
                self._state = jax.device_put(like, accelerator())
        self.put(lane, dict(enumerate(values)))

    def put(self, lane: int, values: dict[int, Any]) -> None:
        """Replaces arrays of a lane's state. ``values`` maps positions in the state to arrays."""
        import jax

        with self._meeting:
            state, new = list(self._state), list(values.values())
            if self.lanes > 1:
                new = self._put([state[n] for n in values], new, lane)
            for n, array in zip(values, jax.device_put(new, accelerator()), strict=True):
                state[n] = array
            self._state = state

    def get(self, lane: int) -> list[np.ndarray]:
        """Copies a lane's state to the host. Lanes share one transfer until the state changes."""
        import jax

        with self._meeting:
            if self._fetched[0] is not self._state:
                self._fetched = self._state, jax.device_get(self._state)
            return [self._of(lane, array) for array in self._fetched[1]]

    def last(self, lane: int, count: int) -> list[np.ndarray]:
        """Returns the last ``count`` arrays of a lane's state."""
        import jax

        return [self._of(lane, array) for array in jax.device_get(self._state[-count:])]

    def _of(self, lane: int, array: np.ndarray) -> np.ndarray:
        return array[lane] if self.lanes > 1 else array

    def meet(self, lane: int, place: Place, batches: list[Batch]) -> None:
        """Makes a lane's call together with the calls of other lanes at the same place."""
        with self._meeting:
            mine = self._calls[lane] = _Call(place, batches)
            self._coming.discard(lane)
            if not self._awaited and len(self._calls) == 1:
                if self._last is None and self.lanes > 1:
                    try:  # the first lane compiles while the other lanes' networks are built
                        self._make({lane: mine}, active=False)
                    except Exception:
                        del self._calls[lane]
                        raise
                self._since = time.monotonic()
            self._meeting.notify_all()
            while self._calls.get(lane) is mine:
                missing = (self._awaited or self._coming) - self._calls.keys()
                left = self._since + PATIENCE - time.monotonic()
                if missing and left > 0:
                    self._meeting.wait(left)
                else:
                    self._next()
        if mine.error:
            raise mine.error

    def _next(self) -> None:
        """Chooses the next place and makes the call for all lanes at this place."""
        places = sorted({call.place for call in self._calls.values()})
        place = next((p for p in places if self._last is None or p >= self._last), places[0])
        together = {n: call for n, call in self._calls.items() if call.place == place}
        for lane in together:
            del self._calls[lane]
        try:
            self._make(together)
        except Exception as error:
            for call in together.values():
                call.error = error
        self._awaited, self._last, self._since = set(together), place, time.monotonic()
        self._meeting.notify_all()

    def _make(self, calls: dict[int, _Call], *, active: bool = True) -> None:
        """Makes a call for some lanes. The other lanes keep their state."""
        import jax

        (validates, _, length), *_ = (call.place for call in calls.values())
        shape = (1 if validates else self.per_call, self.lanes)
        mask = np.zeros(shape, bool)
        positions = np.zeros((*shape, length), "int32")
        _, first = next(iter(calls.values())).batches[0]  # all batches have transforms, or none has
        transforms = None if first is None else np.zeros((*shape, *first.shape), first.dtype)
        for lane, call in calls.items():
            for step, (those, how) in enumerate(call.batches):
                mask[step, lane], positions[step, lane] = active, those
                if transforms is not None:
                    transforms[step, lane] = how
        compiled = self._test if validates else self._train
        new = compiled(self._state, self._data, (mask, positions, transforms))
        self._state = [*self._state[: len(self._state) - len(new)], *new]
        if self.lanes > 1:  # without this, a lane that waits for the device would count as missing
            jax.block_until_ready(new)


class Lane:
    """A run's lane in a program. Calling the lane makes the run's :class:`Steps`."""

    def __init__(self, program: Program):
        self.program = program
        self._number: int | None = program.take()

    def __call__(self, network: keras.Model, experiment: Experiment) -> Steps:
        if self._number is None:  # the lane was given back when another process took the run
            self._number = self.program.take()
        return _JaxSteps(network, experiment, self, self._number)

    def close(self) -> None:
        """Frees the lane for the next run."""
        if self._number is not None:
            self.program.give_back(self._number)
            self._number = None


class _JaxSteps(Steps):
    """A lane's steps. They copy the network's variables to and from the program's state."""

    def __init__(self, network: keras.Model, experiment: Experiment, place: Lane, lane: int):
        super().__init__(network, experiment)
        program = place.program
        self.lanes, self.per_call = program.lanes, program.per_call
        self._program, self._place, self._lane = program, place, lane
        parts = (
            network.trainable_variables,
            network.non_trainable_variables,
            network.optimizer.variables,
            network.metrics_variables,
        )
        self._variables = [*chain(*parts)]
        first = len(self._variables) - len(parts[-1])
        rate = network.optimizer.learning_rate
        self._between_epochs = [
            n for n, variable in enumerate(self._variables) if n >= first or variable is rate
        ]
        program.enter(lane, network, [v.value for v in self._variables], [*map(len, parts)])

    def reset(self) -> None:
        super().reset()
        values = {n: self._variables[n].value for n in self._between_epochs}
        self._program.put(self._lane, values)

    def logs(self) -> dict[str, float]:
        metrics = self.network.metrics_variables
        values = self._program.last(self._lane, len(metrics))
        for variable, value in zip(metrics, values, strict=True):
            variable.assign(value)
        return super().logs()

    def train(self, batches: list[Batch], step: int) -> None:
        self._program.meet(self._lane, (False, step, len(batches[0][0])), batches)

    def test(self, batch: Batch, number: int) -> None:
        self._program.meet(self._lane, (True, number, len(batch[0])), [batch])

    def pull(self) -> None:
        for variable, value in zip(self._variables, self._program.get(self._lane), strict=True):
            variable.assign(value)

    def push(self) -> None:
        values = {n: variable.value for n, variable in enumerate(self._variables)}
        self._program.put(self._lane, values)

    def close(self) -> None:
        self._place.close()

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        import jax

        weights, others = self.network.trainable_variables, self.network.non_trainable_variables
        values = [v.value for v in weights], [v.value for v in others]
        values = jax.device_put(values, accelerator())
        parts = []
        for start in range(0, len(images), EVALUATION_BATCH):
            some = images[start : start + EVALUATION_BATCH].astype("float32")
            parts.append(self._program.predict(*values, some / np.float32(self._pixel_scale)))
        return np.concatenate(jax.device_get(parts))


def make_steps(
    network: keras.Model, images: np.ndarray, labels: np.ndarray, experiment: Experiment
) -> Steps:
    """Makes the :class:`Steps` of one network for the current backend.

    Images are uint8 (n, height, width, channels). Labels are integer class indices (n,).
    """
    return side_by_side([network], images, labels, experiment)[0]


def side_by_side(
    networks: Sequence[keras.Model], images: np.ndarray, labels: np.ndarray, experiment: Experiment
) -> list[Steps]:
    """Makes the :class:`Steps` of several networks. On JAX, one program has a lane per network."""
    if keras.backend.backend() == "jax":
        classes, data = networks[0].output.shape[-1], experiment.data
        program = Program(images, labels, classes, data.pixel_scale, len(networks), data.fill_mode)
        return [program.lane()(network, experiment) for network in networks]
    return [TensorFlowSteps(network, images, labels, experiment) for network in networks]
