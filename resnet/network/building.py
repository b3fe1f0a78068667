"""From an experiment to a network that trains: built, seeded, with faster code where it is equal.

Architectures are plain Keras; nobody who writes one meets a layer that is not Keras's.
"""

import functools
import hashlib
import math
import re
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from scipy.special import ndtri

from resnet import UserError
from resnet.host.messages import one_line
from resnet.network import layers, models
from resnet.network.backend import keras
from resnet.study import Experiment, signatures


def build(
    experiment: Experiment,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    images: np.ndarray | None = None,
) -> keras.Model:
    """Builds the network that an experiment describes, its weights drawn from ``seed``.

    Args:
        experiment: its ``model`` names the architecture and its settings.
        input_shape: height, width and channels.
        classes: number of classes.
        seed: any non-negative integer.
        images: training images, uint8 (n, *input_shape), for the experiment's ``standardize``; a
            network that only tells sizes and times needs none.

    Returns:
        The network, uncompiled, with this project's layers where they equal Keras's. Equal seeds
        give equal weights on every backend.

    Raises:
        UserError: the architecture refuses such images, is one of a study's own and fails, or a
            weight of it has a random value that no seed sets.
    """

    def make() -> keras.Model:
        return _call(experiment, tuple(input_shape), classes)

    network = make()
    if network.output_shape != (None, classes):
        raise UserError(
            f"model.architecture: {experiment.model.architecture} returns {network.output_shape} "
            f"where probabilities of shape (None, {classes}) are expected"
        )
    initialize(network, seed, make)
    if (kind := experiment.data.standardize) and images is not None:
        network = _standardized(network, kind, images, experiment.data.pixel_scale)
    return faster(network, experiment.training.l2)


def _standardized(
    network: keras.Model, kind: str, images: np.ndarray, pixel_scale: float
) -> keras.Model:
    """Puts a ``keras.layers.Normalization`` of images in front of a network."""
    if type(network).__name__ not in ("Functional", "Sequential"):
        raise UserError(f"data.standardize: {_PLAIN}")
    n, axis = len(images), () if kind == "pixel" else (0, 1)
    mean, squares = (
        np.einsum(f"nhwc{other}->hwc", *[images] * copies, dtype="int64").mean(axis) / n
        for other, copies in (("", 1), (",nhwc", 2))
    )
    variance = squares - mean**2
    # a pixel that is the same in all images is centred alone
    variance[variance <= 0] = pixel_scale**2
    shape = network.input_shape[1:]
    image = keras.Input(shape, name="pixels")
    normalized = keras.layers.Normalization(
        axis=-1 if kind == "channel" else (1, 2, 3),
        mean=(mean / pixel_scale).astype("float32"),
        variance=(variance / pixel_scale**2).astype("float32"),
        name=f"standardize_{kind}",
    )(image)

    def call(layer: Any, *tensors: Any, **options: Any) -> Any:
        seen = keras.tree.map_structure(lambda t: normalized if t is image else t, tensors)
        return layer(*seen, **options)

    plain = keras.Model(network.input, network.output, name=network.name)
    copy = keras.models.clone_model(plain, input_tensors=image, call_function=call)
    return _alike(copy, network)


@functools.cache
def _module(code: str) -> dict[str, Any]:
    """Runs a study's ``networks.py``, once."""
    module = types.ModuleType("networks")
    exec(compile(code, signatures.OWN, "exec"), module.__dict__)  # noqa: S102 - the study's own code
    return module.__dict__


def _call(experiment: Experiment, shape: tuple[int, ...], classes: int) -> keras.Model:
    name, settings = experiment.model.architecture, experiment.model.settings
    if not experiment.code:
        return getattr(models, name)(shape, classes, **settings)
    try:
        return _module(experiment.code)[name](shape, classes, **settings)
    except UserError:
        raise
    except Exception as error:  # of somebody's code, whatever it is
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if frame.filename == signatures.OWN]
        where = signatures.OWN + "".join(lines[-1:])
        reason = one_line(f"{type(error).__name__}: {error}")[:300]
        raise UserError(f"{where}: {name}: {reason}") from error


# -- weights ------------------------------------------------------------------------------------


def initialize(network: keras.Model, seed: int, again: Callable[[], keras.Model]) -> None:
    """Draws every layer's weights and dropout states from ``seed`` and the layer's name.

    A rung that adds a layer starts all others from the same weights.

    Args:
        network: built.
        seed: any non-negative integer.
        again: builds the same network once more, to see what is random and was not drawn.

    Raises:
        UserError: a weight's random value cannot be drawn from a seed.
    """
    # NumPy's draws and not Keras's initialisers, whose bits are other ones on each backend
    unknown = []
    for name, layer in leaves(network):
        generator = np.random.default_rng([seed, *name.encode()])
        for variable in _own(layer):
            initializer = _initializer(layer, variable.name)
            if initializer is None:
                unknown.append((name, variable.name, np.asarray(variable)))
            elif _is_drawn(initializer):
                variable.assign(draw(initializer, variable.shape, generator))
            else:  # by Keras, from a seed made of the same two
                settings = initializer.get_config()
                settings["seed"] = int(generator.integers(0, 2**31))
                variable.assign(type(initializer).from_config(settings)(variable.shape))
        for inner in _seed_generators(layer):
            inner.state.assign(generator.integers(0, 2**31, 2))
    if unknown:
        others = {(name, v.name): np.asarray(v) for name, own in leaves(again()) for v in _own(own)}
        for name, weight, value in unknown:
            if not np.array_equal(value, others[name, weight]):
                raise UserError(
                    f"{signatures.OWN}: the weight {weight!r} of the layer {name} has a random "
                    f"value that no seed sets: give the layer an attribute {weight}_initializer"
                )


def leaves(network: keras.Model) -> Iterator[tuple[str, Any]]:
    """Yields every layer with its name, those within others under the names of both."""
    for layer in network.layers:
        for inner in layer._flatten_layers():
            yield (layer.name if inner is layer else f"{layer.name}/{inner.name}"), inner


def notes(network: keras.Model) -> dict[str, str]:
    """Returns what a reader should know of a network that :func:`build` made, as tags of a run.

    ``drawn_by_keras`` names layers whose initial weights depend on the backend; ``standardize``
    has the mean and deviation of pixels that are divided by the experiment's ``pixel_scale``, of
    each pixel a digest.
    """
    found = {}
    drawn = [
        name
        for name, layer in leaves(network)
        for i in [_initializer(layer, variable.name) for variable in _own(layer)]
        if i and not _is_drawn(i)
    ]
    if drawn:
        found["drawn_by_keras"] = ", ".join(dict.fromkeys(drawn))
    for _, layer in leaves(network):
        if layer.name.startswith("standardize_"):
            mean, deviation = np.asarray(layer.input_mean), np.sqrt(layer.input_variance)
            text = f"mean {mean.tolist()}, deviation {deviation.tolist()}"
            if mean.ndim > 1:
                text = f"SHA-256 {hashlib.sha256(mean.tobytes() + deviation.tobytes()).hexdigest()}"
            found["standardize"] = text
    return found


def _own(layer: Any) -> list:
    """A layer's weights, without those of layers within it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _seed_generators(layer: Any) -> list:
    return getattr(layer, "_seed_generators", [])


def _initializer(layer: Any, weight: str) -> Any:
    """The initialiser of a layer's weight, by the attribute that Keras's layers keep it in."""
    # a depthwise convolution calls its weight a kernel
    for stem in (weight, weight.removesuffix("_kernel"), weight.replace("kernel", "depthwise")):
        if callable(found := getattr(layer, f"{stem}_initializer", None)):
            return found
    return None


_I = keras.initializers
_DRAWN = (
    *(_I.VarianceScaling, _I.RandomUniform, _I.RandomNormal, _I.TruncatedNormal, _I.Orthogonal),
    *(_I.Zeros, _I.Ones, _I.Constant, _I.Identity),
)


def _is_drawn(initializer: Any) -> bool:
    """Whether :func:`draw` can; a class of a study's own is called instead."""
    return isinstance(initializer, _DRAWN) and type(initializer).__module__.startswith("keras.")


def draw(initializer: Any, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draws what a Keras initialiser would, from NumPy's generator.

    Args:
        initializer: an instance of one of the usual classes.
        shape: of the weight.
        generator: the only source of randomness.
    """
    i = initializer
    if isinstance(i, _I.VarianceScaling):
        *window, inputs, outputs = shape if len(shape) > 1 else (*shape, *shape)
        size = math.prod(window)
        fan = {"fan_in": size * inputs, "fan_out": size * outputs}.get(
            i.mode, size * (inputs + outputs) / 2
        )
        scale = i.scale / max(1.0, fan)
        if i.distribution == "uniform":
            return generator.uniform(-np.sqrt(3 * scale), np.sqrt(3 * scale), shape)
        if i.distribution == "untruncated_normal":
            return generator.normal(0, np.sqrt(scale), shape)
        # the deviation of a standard normal between -2 and 2
        return _truncated(generator, shape) * np.sqrt(scale) / 0.87962566103423978
    if isinstance(i, _I.RandomUniform):
        return generator.uniform(i.minval, i.maxval, shape)
    if isinstance(i, _I.RandomNormal):
        return generator.normal(i.mean, i.stddev, shape)
    if isinstance(i, _I.TruncatedNormal):
        return i.mean + i.stddev * _truncated(generator, shape)
    if isinstance(i, _I.Orthogonal):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        return i.gain * (q if rows >= columns else q.T).reshape(shape)
    return np.asarray(i(shape))


def _truncated(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers between -2 and 2."""
    tail = 0.022750131948179195  # of the distribution below -2
    return ndtri(generator.uniform(tail, 1 - tail, shape))


# -- faster code, and back ----------------------------------------------------------------------


def faster(network: keras.Model, l2: float = 0.0) -> keras.Model:
    """Puts this project's layers into a network where they equal the stock ones.

    Args:
        network: of Keras's own layers, built.
        l2: of the regulariser that all kernels are given, 0 for none.

    Returns:
        A copy with the same names and weights; the network itself if its model is of a class of its
        own, which cannot be copied layer by layer.

    Raises:
        UserError: a kernel cannot be given the regulariser.
    """

    def replace(layer: Any) -> Any:
        settings, kind = layer.get_config(), cast(Any, type(layer))
        if l2:
            kernels = {key for key in settings if _KERNELS.fullmatch(key)}
            settings |= dict.fromkeys(kernels, keras.regularizers.L2(l2))
        if kind in layers.FASTER and layers.fits(layer):
            kind = layers.FASTER[kind]
        return kind.from_config(settings)

    copy = _copied(network, replace)
    for name, layer in leaves(copy) if l2 else ():
        if any(_KERNELS.fullmatch(key) and value is None for key, value in vars(layer).items()):
            raise UserError(f"training.l2: the kernels of {name} cannot be regularised; {_PLAIN}")
    return copy


_KERNELS = re.compile("(kernel|depthwise|pointwise|recurrent)_regularizer")


_PLAIN = f"{signatures.OWN}: return keras.Model(inputs, outputs) or keras.Sequential"


def _copied(network: keras.Model, replace: Callable[[Any], Any]) -> keras.Model:
    if type(network).__name__ not in ("Functional", "Sequential"):
        return network
    return _alike(
        keras.models.clone_model(network, clone_function=replace, recursive=True), network
    )


def _alike(copy: keras.Model, network: keras.Model) -> keras.Model:
    """Gives a copy the weights and dropout states of a network."""
    copy.set_weights(network.get_weights())
    old = dict(leaves(network))
    for name, layer in leaves(copy):
        for a, b in zip(_seed_generators(layer), _seed_generators(old.get(name)), strict=True):
            a.state.assign(b.state)
    return copy


def stock(network: keras.Model) -> keras.Model:
    """Rebuilds a network in Keras's own layers, weights included, to be saved and shared.

    Args:
        network: from :func:`build`.

    Returns:
        A copy that loads in plain Keras without this project.
    """
    back = {ours: plain for plain, ours in layers.FASTER.items()}

    def replace(layer: Any) -> Any:
        settings = layer.get_config()
        # it shaped the training, and predicts nothing
        settings |= dict.fromkeys({key for key in settings if key.endswith("_regularizer")})
        return cast(Any, back.get(type(layer), type(layer))).from_config(settings)

    return _copied(network, replace)


def served(network: keras.Model, pixel_scale: float) -> keras.Model:
    """Puts :func:`stock` behind a rescaling, for whoever has images as they come.

    Args:
        network: from :func:`build`.
        pixel_scale: pixels are divided by it, within the model.

    Returns:
        Model from uint8 images (batch, height, width, channels) to probabilities (batch, classes).
    """
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / pixel_scale, name="rescaling")(image)
    return keras.Model(image, stock(network)(scaled), name="served")


def multiply_adds(network: keras.Model) -> float:
    """Counts multiply-adds for one image, biases not counted; NaN if a layer cannot be counted."""
    total = 0.0
    for _, layer in leaves(network):
        sizes = [math.prod(v.shape) for v in _own(layer) if len(v.shape) > 1]
        once = len(layer._inbound_nodes) == 1
        if once and isinstance(layer, _BY_OUTPUT):
            total += sum(sizes) * math.prod(layer.output.shape[1:-1])
        elif once and isinstance(layer, _BY_INPUT):
            total += sum(sizes) * math.prod(layer.input.shape[1:-1])
        elif sizes:  # of a product whose size is not known here
            return math.nan
    return int(total)


_KINDS = keras.layers
# each pixel of the output, or of the input, takes as many as there are weights
_BY_OUTPUT = (
    *(_KINDS.Dense, _KINDS.Conv1D, _KINDS.Conv2D, _KINDS.Conv3D, _KINDS.DepthwiseConv1D),
    *(_KINDS.DepthwiseConv2D, _KINDS.SeparableConv1D, _KINDS.SeparableConv2D),
)
_BY_INPUT = (_KINDS.Conv1DTranspose, _KINDS.Conv2DTranspose, _KINDS.Conv3DTranspose)
