"""The schema of experiments, and hashes of the settings that affect results."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from resnet.study.files import Dumper

Monitor = Literal["accuracy", "loss", "val_accuracy", "val_loss"]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Delta = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


def _printable(text: str) -> str:
    # control characters can disturb the terminal, and some are not allowed in an SVG
    if odd := [c for c in text if not c.isprintable() and unicodedata.category(c) != "Zs"]:
        raise ValueError(f"the character {odd[0]!a} cannot be printed; leave it out")
    if not text.strip():
        raise ValueError("it must not be blank")
    return text


def _joined(text: str) -> str:
    return _printable(" ".join(text.split("\n")).strip())


Name = Annotated[str, AfterValidator(_printable)]
Text = Annotated[str, AfterValidator(_joined)]  # printable text on one line


class Strict(BaseModel):
    """Rejects unknown keys, and values of the wrong type: ``"25"`` or ``true`` is not a number."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class _WithSettings(Strict):  # resnet.study.signatures checks the settings
    model_config = ConfigDict(extra="allow")

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Named(_WithSettings):
    """A class of Keras. Its settings are arguments of the constructor."""

    name: Name
    """Keras's identifier for the class."""


class Model(_WithSettings):
    """An architecture. Its settings are arguments of the network function."""

    architecture: Name
    """Name of a network function in the study's ``networks.py`` or in the project."""
    code_sha256: str = ""  # hash of the study's networks.py, if the architecture is defined there


_AFFINE = "rotation_range", "width_shift_range", "height_shift_range", "zoom_range"
_HASHED = *_AFFINE, "horizontal_flip"


class Augmentation(Strict):
    """Random changes to images; most keys are named as in Keras's ``ImageDataGenerator``."""

    rotation_range: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    """Largest rotation in degrees; angles are uniform in [-rotation_range, rotation_range]."""
    width_shift_range: Fraction = 0.0
    """Largest shift, as a fraction of the width."""
    height_shift_range: Fraction = 0.0
    """Largest shift, as a fraction of the height."""
    zoom_range: Fraction = 0.0
    """Each axis has its own zoom factor in [1 - zoom_range, 1 + zoom_range]."""
    horizontal_flip: bool = False
    """Mirrors half of the images from left to right."""
    vertical_flip: bool = False
    """Mirrors half of the images from top to bottom."""
    fill_mode: Literal["nearest", "constant", "reflect"] = "nearest"
    """How a transform fills pixels outside the image; `constant` fills them with zeros."""
    crop_padding: Annotated[int, Field(ge=0, le=1024)] = 0
    """Pads each side with this many zeros, then cuts out a random part as large as the original."""
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side length, in pixels, of a randomly placed square of zeros that may cross the border."""
    expand_shifts: Annotated[int, Field(ge=0, le=1024)] = 0
    """Adds four copies of each image, moved by this many pixels up, down, left and right."""

    @property
    def affine(self) -> bool:  # whether images are rotated, shifted, zoomed or mirrored
        return any(getattr(self, key) for key in (*_HASHED, "vertical_flip"))

    @property
    def boxed(self) -> bool:  # whether images are cropped, partly zeroed or moved by whole pixels
        return bool(self.crop_padding or self.cutout or self.expand_shifts)

    @property
    def copies(self) -> int:  # number of times that an epoch shows each image
        return 5 if self.expand_shifts else 1


class Validation(Strict):
    """Which training images are used for validation, and how."""

    fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    """Share of the training images that is used for validation."""
    subset: Literal["first", "last", "random"]
    """The images to hold out; `random` draws the same share of each class, always with seed 0."""
    augmented: bool
    """Whether validation images are augmented too, as in the shipped study's rungs 2-5."""
    drop_remainder: bool
    """Omits incomplete batches in training and validation, as the shipped study's rungs 2-5 do."""


class Data(Strict):
    """How images are scaled, split for validation, and augmented."""

    pixel_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Number by which pixels (0..255) are divided."""
    validation: Validation
    augmentation: Augmentation | None
    standardize: Literal["channel", "pixel"] | None = None
    """Standardizes images after augmentation, with the training images' mean and variance."""

    @property
    def fill_mode(self) -> str:  # the augmentation's mode, or "nearest" without augmentation
        return self.augmentation.fill_mode if self.augmentation else "nearest"


class EarlyStopping(Strict):
    """Settings of Keras's ``EarlyStopping``."""

    monitor: Monitor
    """The curve that should improve."""
    patience: Count
    """Training stops after this many epochs without improvement."""
    min_delta: Delta
    """A change below this value does not count as an improvement."""
    restore_best_weights: Literal["always", "when_stopped", "never"]
    """When to restore the best epoch's weights; Keras 3: `always`, Keras 2: `when_stopped`."""
    ties: Literal["first", "last"] = "first"
    """Which of several equally good epochs counts as the best; Keras takes the first."""


class ReduceLROnPlateau(Strict):
    """Settings of Keras's ``ReduceLROnPlateau``, without ``cooldown``."""

    monitor: Monitor
    """The curve that should improve."""
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    """Number by which the learning rate is multiplied."""
    patience: Count
    """The learning rate drops after this many epochs without improvement."""
    min_delta: Delta
    """A change below this value does not count as an improvement."""
    min_lr: Delta
    """Lowest learning rate."""


class Training(Strict):
    """How the network is trained to minimize the categorical cross-entropy."""

    epochs: Count
    """Largest number of epochs."""
    batch_size: Count
    """Images per training step."""
    learning_rate: Rate
    """Rate at the start; `schedule` or `reduce_lr_on_plateau` can change it between epochs."""
    early_stopping: EarlyStopping | None
    reduce_lr_on_plateau: ReduceLROnPlateau | None
    optimizer: Named | None = None
    """An optimizer of Keras with its settings; null means Adam."""
    schedule: Named | None = None
    """A learning-rate schedule of Keras, with one step per epoch."""
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Adds `l2` times the sum of all kernels' squared weights to the loss."""
    label_smoothing: Fraction = 0.0
    """Share of a label's probability that is divided among all classes."""
    shuffle: Literal["epoch", "once", "never"] = "epoch"
    """When images are shuffled: before each epoch, once for all epochs, or never."""

    @model_validator(mode="after")
    def _one_schedule(self) -> "Training":
        if self.schedule and self.reduce_lr_on_plateau:
            raise ValueError("training.schedule and reduce_lr_on_plateau: give only one of them")
        return self


class Alternative(Strict):
    """Another possible value of an assumed key."""

    value: Any
    reason: Text


class Experiment(Strict):
    """An experiment in which every value is explicit."""

    name: Name
    title: Annotated[str, Field(max_length=80), AfterValidator(_joined)]
    model: Model
    data: Data
    training: Training
    assumed: dict[str, Text] = {}  # the reason for each value that the study does not state
    alternatives: dict[str, list[Alternative]] = {}  # other possible values of assumed keys
    code: str = ""  # text of the study's networks.py, if it defines the architecture

    @property
    def label(self) -> str:
        # the title of a derived experiment already names its rung
        return self.title if "~" in self.name else f"{short(self.name)} {self.title}"

    def flat(self, **options: Any) -> dict[str, Any]:
        """Returns the settings that affect the result, as ``{"training.epochs": 25, ...}``."""
        tree = self.model_dump(include={"model", "data", "training"}, **options)
        if not self.model.code_sha256:
            tree["model"].pop("code_sha256", None)
        return dict(flatten(tree))

    def hash(self) -> str:
        """Returns the SHA-256 (hex) of the settings that affect the result.

        Values that equal their defaults are left out. So existing runs, records and checkpoints
        keep their hashes when the schema gets a new key whose default changes nothing.
        """
        return _digest(self._hashed())

    def _hashed(self) -> dict[str, Any]:
        flat = self.flat(exclude_defaults=True)
        if augmentation := self.data.augmentation:  # old hashes cover these keys even at defaults
            flat |= {f"data.augmentation.{key}": getattr(augmentation, key) for key in _HASHED}
        return flat

    def trajectory(self) -> str:
        """Returns the SHA-256 (hex) of the settings that affect the weights after each epoch."""
        # Early stopping and the number of epochs only decide which of these weights are tested.
        # Schedules are left out because checkpoint names depend on all learning rates so far. So
        # the shipped study's rung 4 shares rung 3's checkpoints until rung 4 changes the rate.
        left_out = ("epochs", "early_stopping", "reduce_lr_on_plateau", "schedule")
        return _digest({k: v for k, v in self._hashed().items() if k.split(".")[1] not in left_out})

    def program(self) -> str:
        """Returns the SHA-256 (hex) of the settings that all jobs in a compiled program must share.

        Settings that only change the inputs of a step, such as learning rates, are left out.
        """
        inputs = (
            *("training.epochs", "training.early_stopping", "training.reduce_lr_on_plateau"),
            *("training.learning_rate", "training.schedule", "training.shuffle"),
            *("data.validation.subset", "data.augmentation."),
        )
        shape = {key: value for key, value in self.flat().items() if not key.startswith(inputs)}
        a = self.data.augmentation
        return _digest(shape | {"augmented": a and (a.fill_mode, a.affine, a.boxed, a.copies)})

    def to_yaml(self) -> str:
        """Returns the experiment as YAML text in which every value is explicit."""
        tree = self.model_dump(exclude={"alternatives", "code"})
        if not self.model.code_sha256:
            del tree["model"]["code_sha256"]
        return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


class Profile(Strict):
    """Changes that apply to every experiment, for example for a quick trial."""

    description: Text
    data: Name
    changes: dict[str, Any]


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of each leaf in a tree."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def rung_number(name: str) -> int | None:
    """Returns 5 for ``05_deeper_dropout``, and None for a baseline or a derived experiment."""
    number, underscore, rest = name.partition("_")
    return int(number) if underscore and number.isdecimal() and "~" not in rest else None


def short(name: str) -> str:
    """Returns a rung's number as text, or the name of any other experiment."""
    number = rung_number(name)
    return name if number is None else str(number)


def rungs(names: Iterable[str]) -> list[str]:
    """Returns the ``names`` that belong to rungs, in the ladder's order."""
    numbers = {name: number for name in names if (number := rung_number(name)) is not None}
    return sorted(numbers, key=numbers.__getitem__)


_BLOCKS: dict[str, type[Strict]] = {
    "data.augmentation": Augmentation,
    "training.early_stopping": EarlyStopping,
}


def differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """Returns a line for each setting that differs, and for each block that is added or removed."""
    lines: list[str] = []
    blocks: dict[str, list[str]] = {}
    for key in dict.fromkeys([*after, *before]):
        old, new = before.get(key), after.get(key)
        block, _, leaf = key.rpartition(".")
        if old == new:
            continue
        if key not in before and before.get(block, "") is None:  # the block was null
            schema = _BLOCKS.get(block)
            if not schema or schema.model_fields[leaf].default != new:
                blocks.setdefault(block, []).append(f"{leaf} {_text(new)}")
        elif key not in after and after.get(block, "") is None:
            blocks[block] = ["off"]
        else:
            lines.append(f"{key}: {_text(old)} -> {_text(new)}")
    return (*lines, *(f"{block}: {', '.join(texts)}" for block, texts in blocks.items()))


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", False: "no", True: "yes"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
