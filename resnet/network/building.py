"""Builds networks, draws their initial weights, and replaces some layers with faster layers."""

import functools
import hashlib
import math
import re
import traceback
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
    """Builds an experiment's uncompiled network for images (height, width, channels).

    Layers of :mod:`resnet.network.layers` replace Keras's layers wherever both give equal results.
    Equal seeds give equal weights on every backend. The training ``images``, uint8
    (n, *input_shape), are needed only for the setting ``data.standardize``.

    Raises:
        UserError: the architecture fails, does not accept the image size, or has a weight with a
            random value that no seed sets.
    """
    make = functools.partial(_call, experiment, tuple(input_shape), classes)
    network = make()
    if network.output_shape != (None, classes):
        raise UserError(
            f"model.architecture: {experiment.model.architecture} returns {network.output_shape}. "
            f"Return probabilities of shape (None, {classes})."
        )
    initialize(network, seed, make)
    if (kind := experiment.data.standardize) and images is not None:
        network = _standardized(network, kind, images, experiment.data.pixel_scale)
    return faster(network, experiment.training.l2)


def _standardized(
    network: keras.Model, kind: str, images: np.ndarray, pixel_scale: float
) -> keras.Model:
    """Adds a first layer, which standardises pixels with the images' mean and variance."""
    if not _clonable(network):
        raise UserError(f"data.standardize: does not work with a subclass of keras.Model. {_PLAIN}")
    n, axis = len(images), () if kind == "pixel" else (0, 1)
    mean, squares = (
        np.einsum(f"nhwc{other}->hwc", *[images] * copies, dtype="int64").mean(axis) / n
        for other, copies in (("", 1), (",nhwc", 2))
    )
    variance = squares - mean**2
    variance[variance <= 0] = pixel_scale**2  # so that the layer divides a constant pixel by 1
    image = keras.Input(network.input_shape[1:], name="pixels")
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
    return _cloned(plain, input_tensors=image, call_function=call)


@functools.cache
def _module(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "networks"}
    exec(compile(code, signatures.OWN, "exec"), names)  # noqa: S102 - the study's own code
    return names


def _call(experiment: Experiment, shape: tuple[int, ...], classes: int) -> keras.Model:
    name, settings = experiment.model.architecture, experiment.model.settings
    if not experiment.code:
        return getattr(models, name)(shape, classes, **settings)
    try:
        return _module(experiment.code)[name](shape, classes, **settings)
    except UserError:
        raise
    except Exception as error:  # a study's own code may raise anything
        where, reason = signatures.OWN, one_line(f"{type(error).__name__}: {error}")[:300]
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == signatures.OWN:
                where = f"{signatures.OWN}, line {frame.lineno}"
        raise UserError(f"{where}: {name}: {reason}") from error


# -- weights ------------------------------------------------------------------------------------


def initialize(network: keras.Model, seed: int, again: Callable[[], keras.Model]) -> None:
    """Draws every layer's weights and dropout states from ``seed`` and the layer's name.

    If a rung adds a layer, the initial weights of all other layers stay the same. ``again`` builds
    the network a second time, to find random values that no seed sets.

    Raises:
        UserError: a weight's random value cannot be drawn from a seed.
    """
    # NumPy draws the values, because the values of Keras's initialisers depend on the backend.
    unknown = []
    for name, layer in leaves(network):
        generator = np.random.default_rng([seed, *name.encode()])
        for variable in _own(layer):
            initializer = _initializer(layer, variable.name)
            if initializer is None:
                unknown.append((name, variable))
            elif _is_drawn(initializer):
                variable.assign(draw(initializer, variable.shape, generator))
            else:  # Keras draws the values. NumPy's generator gives the seed
                settings = initializer.get_config()
                settings["seed"] = int(generator.integers(0, 2**31))
                variable.assign(type(initializer).from_config(settings)(variable.shape))
        for inner in getattr(layer, "_seed_generators", []):
            inner.state.assign(generator.integers(0, 2**31, 2))
    built = leaves(again()) if unknown else ()
    others = {(name, v.name): v for name, layer in built for v in _own(layer)}
    for name, variable in unknown:
        if not np.array_equal(variable, others[name, variable.name]):
            raise UserError(
                f"{signatures.OWN}: the weight {variable.name!r} of the layer {name} has a random "
                f"value that no seed sets. Give the layer an attribute {variable.name}_initializer."
            )


def leaves(network: keras.Model) -> Iterator[tuple[str, Any]]:
    """Yields every layer with its name. A layer within another is named ``outer/inner``."""
    for layer in network.layers:
        for inner in layer._flatten_layers():
            yield (layer.name if inner is layer else f"{layer.name}/{inner.name}"), inner


def notes(network: keras.Model) -> dict[str, str]:
    """Returns MLflow tags that describe a network of :func:`build`.

    ``drawn_by_keras`` names layers whose initial weights depend on the backend. ``standardize`` has
    mean and standard deviation of scaled pixels, or their digest if each pixel has its own mean.
    """
    found, drawn = {}, []
    for name, layer in leaves(network):
        initializers = [_initializer(layer, variable.name) for variable in _own(layer)]
        if any(i and not _is_drawn(i) for i in initializers):
            drawn.append(name)
        if layer.name.startswith("standardize_"):
            mean, deviation = np.asarray(layer.input_mean), np.sqrt(layer.input_variance)
            text = f"mean {mean.tolist()}, deviation {deviation.tolist()}"
            if mean.ndim > 1:
                text = f"SHA-256 {hashlib.sha256(mean.tobytes() + deviation.tobytes()).hexdigest()}"
            found["standardize"] = text
    return found | ({"drawn_by_keras": ", ".join(dict.fromkeys(drawn))} if drawn else {})


def _own(layer: Any) -> list:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _initializer(layer: Any, weight: str) -> Any:
    # A depthwise convolution initialises its weight ``kernel`` with ``depthwise_initializer``.
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
    return isinstance(initializer, _DRAWN) and type(initializer).__module__.startswith("keras.")


def draw(initializer: Any, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draws from the distribution of an initialiser in ``_DRAWN``, with NumPy's generator."""
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
        # A standard normal distribution, cut off at -2 and 2, has a standard deviation of 0.8796.
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
    tail = 0.022750131948179195  # probability that a standard normal number is below -2
    return ndtri(generator.uniform(tail, 1 - tail, shape))


# -- faster and stock layers --------------------------------------------------------------------


def faster(network: keras.Model, l2: float = 0.0) -> keras.Model:
    """Clones a network and replaces layers with faster ones, wherever both give equal results.

    All kernels get an L2 regulariser with the factor ``l2``. Keras cannot clone the layers of a
    network that subclasses ``keras.Model``. Such a network is returned unchanged.

    Raises:
        UserError: a kernel cannot be regularised.
    """

    def replace(layer: Any) -> Any:
        settings, kind = layer.get_config(), cast(Any, type(layer))
        if l2:
            settings |= {k: keras.regularizers.L2(l2) for k in settings if _KERNELS.fullmatch(k)}
        if kind in layers.FASTER and layers.fits(layer):
            kind = layers.FASTER[kind]
        return kind.from_config(settings)

    copy = _cloned(network, clone_function=replace, recursive=True)
    for name, layer in leaves(copy) if l2 else ():
        if any(_KERNELS.fullmatch(key) and value is None for key, value in vars(layer).items()):
            raise UserError(f"training.l2: the kernels of {name} cannot be regularised. {_PLAIN}")
    return copy


_KERNELS = re.compile("(kernel|depthwise|pointwise|recurrent)_regularizer")
_PLAIN = f"In {signatures.OWN}, return keras.Model(inputs, outputs) or keras.Sequential."


def _clonable(network: keras.Model) -> bool:
    return type(network).__name__ in ("Functional", "Sequential")


def _cloned(network: keras.Model, **options: Any) -> keras.Model:
    """Clones a network and its weights. Returns the network itself if Keras cannot clone it."""
    if not _clonable(network):
        return network
    clone = keras.models.clone_model(network, **options)
    for new, old in zip(clone.variables, network.variables, strict=True):
        new.assign(old)
    return clone


def stock(network: keras.Model) -> keras.Model:
    """Copies a network of :func:`build`. Keras can load the copy without this project."""
    back = {ours: plain for plain, ours in layers.FASTER.items()}

    def replace(layer: Any) -> Any:
        settings = layer.get_config()
        # Only training needs a regulariser.
        settings |= dict.fromkeys({key for key in settings if key.endswith("_regularizer")})
        return cast(Any, back.get(type(layer), type(layer))).from_config(settings)

    return _cloned(network, clone_function=replace, recursive=True)


def served(network: keras.Model, pixel_scale: float) -> keras.Model:
    """Returns a :func:`stock` copy that takes uint8 images (batch, height, width, channels)."""
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    scaled = keras.layers.Rescaling(1 / pixel_scale, name="rescaling")(image)
    return keras.Model(image, stock(network)(scaled), name="served")


def multiply_adds(network: keras.Model) -> float:
    """Counts a network's multiply-adds per image, without biases. An unknown layer gives NaN."""
    total = 0.0
    for _, layer in leaves(network):
        sizes = [math.prod(v.shape) for v in _own(layer) if len(v.shape) > 1]
        once = len(layer._inbound_nodes) == 1
        if once and isinstance(layer, _BY_OUTPUT):
            total += sum(sizes) * math.prod(layer.output.shape[1:-1])
        elif once and isinstance(layer, _BY_INPUT):
            total += sum(sizes) * math.prod(layer.input.shape[1:-1])
        elif sizes:
            return math.nan
    return int(total)


_KINDS = keras.layers
# _BY_OUTPUT: layers that use each weight once per output pixel. _BY_INPUT: once per input pixel.
_BY_OUTPUT = (
    *(_KINDS.Dense, _KINDS.Conv1D, _KINDS.Conv2D, _KINDS.Conv3D, _KINDS.DepthwiseConv1D),
    *(_KINDS.DepthwiseConv2D, _KINDS.SeparableConv1D, _KINDS.SeparableConv2D),
)
_BY_INPUT = (_KINDS.Conv1DTranspose, _KINDS.Conv2DTranspose, _KINDS.Conv3DTranspose)
