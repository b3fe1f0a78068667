"""The schema of an experiment, and the hashes of what shapes its result."""

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
    # other characters steer the terminal, or are not allowed in an SVG
    if odd := [c for c in text if not c.isprintable() and unicodedata.category(c) != "Zs"]:
        raise ValueError(f"the character {odd[0]!a} cannot be printed; leave it out")
    if not text.strip():
        raise ValueError("it is blank")
    return text


def _joined(text: str) -> str:
    return _printable(" ".join(text.split("\n")).strip())


Name = Annotated[str, AfterValidator(_printable)]
Text = Annotated[str, AfterValidator(_joined)]
"""Printable text; its lines in a file become one."""


class Strict(BaseModel):
    """Refuses unknown keys and silent conversions (``"25"`` or ``true`` is not 25)."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class _WithSettings(Strict):  # of its own, which resnet.study.signatures checks
    model_config = ConfigDict(extra="allow")

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Named(_WithSettings):
    """A class of Keras's with its settings, the constructor's arguments."""

    name: Name
    """Keras's identifier of the class."""


class Model(_WithSettings):
    """An architecture with its settings, the arguments of the function of that name."""

    architecture: Name
    """A function of ``networks.py`` in the study's folder, or of the project."""
    code_sha256: str = ""
    """Hash of the study's ``networks.py``, if the architecture is one of its own."""


_AFFINE = "rotation_range", "width_shift_range", "height_shift_range", "zoom_range"
_HASHED = *_AFFINE, "horizontal_flip"


class Augmentation(Strict):
    """The random affine transform, named as in Keras's ``ImageDataGenerator``."""

    rotation_range: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 0.0
    """Degrees; the angle is uniform in [-rotation_range, rotation_range]."""
    width_shift_range: Fraction = 0.0
    """Fraction of the width."""
    height_shift_range: Fraction = 0.0
    """Fraction of the height."""
    zoom_range: Fraction = 0.0
    """Each axis is zoomed by its own factor in [1 - zoom_range, 1 + zoom_range]."""
    horizontal_flip: bool = False
    """Mirrors half of the images, left and right."""
    vertical_flip: bool = False
    """Mirrors half of the images, top and bottom."""
    fill_mode: Literal["nearest", "constant", "reflect"] = "nearest"
    """What the transform shows outside of an image; constant is zero."""
    crop_padding: Annotated[int, Field(ge=0, le=1024)] = 0
    """Pads with so many zeros on each side, and crops the image's size at a random place."""
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side of a square of zeros at a random place, in pixels; parts of it may lie outside."""
    expand_shifts: Annotated[int, Field(ge=0, le=1024)] = 0
    """An epoch holds each image and its copies moved by so many pixels in four directions."""

    @property
    def affine(self) -> bool:  # images are turned, shifted, zoomed or mirrored
        return any(getattr(self, key) for key in (*_HASHED, "vertical_flip"))

    @property
    def boxed(self) -> bool:  # images are moved by whole pixels, or cut
        return bool(self.crop_padding or self.cutout or self.expand_shifts)

    @property
    def copies(self) -> int:  # of each image in an epoch
        return 5 if self.expand_shifts else 1


class Validation(Strict):
    """Which training images are held out, and how they are looked at."""

    fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    """Share of the training images that validate."""
    subset: Literal["first", "last", "random"]
    """Random takes the same share of each class, by seed 0 whatever a run's seed is."""
    augmented: bool
    """Augments the validation images too, as the study's generator does."""
    drop_remainder: bool
    """Leaves out the last, incomplete batch, of training too (the study's ``n // 32`` steps)."""


class Data(Strict):
    """How images become batches."""

    pixel_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Pixels (0..255) are divided by this."""
    validation: Validation
    augmentation: Augmentation | None
    standardize: Literal["channel", "pixel"] | None = None
    """Subtracts the training images' mean and divides by their deviation, after augmentation."""

    @property
    def fill_mode(self) -> str:  # the augmentation's, or its default
        return self.augmentation.fill_mode if self.augmentation else "nearest"


class EarlyStopping(Strict):
    """Keras's callback of that name."""

    monitor: Monitor
    """The curve that should improve."""
    patience: Count
    """Epochs without improvement after which training stops."""
    min_delta: Delta
    """A smaller change is no improvement."""
    restore_best_weights: Literal["always", "when_stopped", "never"]
    """``always`` is Keras 3's rule, ``when_stopped`` Keras 2's (only if stopping triggered)."""
    ties: Literal["first", "last"] = "first"
    """Which of equally good epochs is the best: Keras takes the first."""


class ReduceLROnPlateau(Strict):
    """Keras's callback of that name, without cooldown."""

    monitor: Monitor
    """The curve that should improve."""
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    """The learning rate is multiplied by it."""
    patience: Count
    """Epochs without improvement after which the rate drops."""
    min_delta: Delta
    """A smaller change is no improvement."""
    min_lr: Delta
    """The rate drops no lower."""


class Training(Strict):
    """An optimizer on the categorical cross-entropy."""

    epochs: Count
    """Most epochs that are trained."""
    batch_size: Count
    """Images of a training step."""
    learning_rate: Rate
    """At the start; a schedule or plateau changes it between epochs."""
    early_stopping: EarlyStopping | None
    reduce_lr_on_plateau: ReduceLROnPlateau | None
    optimizer: Named | None = None
    """One of Keras's by its identifier, with its settings; Adam if there is none."""
    schedule: Named | None = None
    """One of Keras's learning-rate schedules, in epochs, set as each epoch starts."""
    l2: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Adds l2 times the sum of all kernels' squared weights to the loss."""
    label_smoothing: Fraction = 0.0
    """Share of a label's probability that is spread over all classes."""
    shuffle: Literal["epoch", "once", "never"] = "epoch"
    """Whether each epoch has an order of its own, all have one, or that of the images."""

    @model_validator(mode="after")
    def _one_schedule(self) -> "Training":
        if self.schedule and self.reduce_lr_on_plateau:
            raise ValueError("training.schedule and reduce_lr_on_plateau: give one of them")
        return self


class Alternative(Strict):
    """Another value that an assumption could have had."""

    value: Any
    reason: Text


class Experiment(Strict):
    """One fully explicit experiment."""

    name: Name
    title: Annotated[str, Field(max_length=80), AfterValidator(_joined)]
    model: Model
    data: Data
    training: Training
    assumed: dict[str, Text] = {}
    """Of each key (``training.epochs``) whose value the study does not state, the reason."""
    alternatives: dict[str, list[Alternative]] = {}
    """Other values of these keys, see :mod:`resnet.study.ablation`."""
    code: str = ""
    """The text of the study's ``networks.py``, if the architecture is one of its own."""

    @property
    def label(self) -> str:
        # an experiment without a file has the title alone
        return self.title if "~" in self.name else f"{short(self.name)} {self.title}"

    def flat(self, **options: Any) -> dict[str, Any]:
        """Returns everything that shapes the result as ``{"training.epochs": 25, ...}``."""
        tree = self.model_dump(include={"model", "data", "training"}, **options)
        if not self.model.code_sha256:
            tree["model"].pop("code_sha256", None)
        return dict(flatten(tree))

    def hash(self) -> str:
        """Returns SHA-256 (hex) of what shapes the result; title and assumptions do not.

        Defaults do not enter the hash. So a key that the schema gets later, with a default that
        means "as before", leaves the hashes of runs, records and checkpoints as they are.
        """
        return _digest(self._hashed())

    def _hashed(self) -> dict[str, Any]:
        flat = self.flat(exclude_defaults=True)
        if augmentation := self.data.augmentation:  # of these there were no defaults at first
            flat |= {f"data.augmentation.{key}": getattr(augmentation, key) for key in _HASHED}
        return flat

    def trajectory(self) -> str:
        """Returns SHA-256 (hex) of what shapes the weights after each epoch."""
        # The number of epochs and early stopping decide only which of these weights are tested.
        # A schedule counts only after it first changes the rate: rung 4 shares rung 3's training
        # until then, because a checkpoint's name has the rates so far.
        left_out = ("epochs", "early_stopping", "reduce_lr_on_plateau", "schedule")
        return _digest({k: v for k, v in self._hashed().items() if k.split(".")[1] not in left_out})

    def program(self) -> str:
        """Returns SHA-256 (hex) of what shapes the compiled training step, and the number of steps.

        The images held out, the angles, and the learning rate of each epoch are inputs of a step.
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
        """Writes the resolved experiment as YAML, every value explicit."""
        tree = self.model_dump(exclude={"alternatives", "code"})
        if not self.model.code_sha256:
            del tree["model"]["code_sha256"]
        return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


class Profile(Strict):
    """A named variation of every rung, for trying the machinery."""

    description: Text
    data: Name
    changes: dict[str, Any]


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a tree's leaves by their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def rung_number(name: str) -> int | None:
    """Returns 5 for ``05_deeper_dropout``, None for a baseline and for a part of a step."""
    number, underscore, rest = name.partition("_")
    return int(number) if underscore and number.isdecimal() and "~" not in rest else None


def short(name: str) -> str:
    """Returns ``3`` for a rung, the name of anything else."""
    number = rung_number(name)
    return name if number is None else str(number)


def rungs(names: Iterable[str]) -> list[str]:
    """Picks the numbered ones among experiments, in the ladder's order."""
    numbers = {name: number for name in names if (number := rung_number(name)) is not None}
    return sorted(numbers, key=numbers.__getitem__)


_BLOCKS: dict[str, type[Strict]] = {
    "data.augmentation": Augmentation,
    "training.early_stopping": EarlyStopping,
}


def differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """Writes the difference of two flat configurations, one line per setting or new block."""
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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
