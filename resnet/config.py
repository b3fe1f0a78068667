"""What an experiment may say: the schema, ``extends``, overrides, and the hash.

An experiment is a YAML file that states only what it changes against the one it ``extends``.
Resolving yields an :class:`Experiment` in which every value is explicit; that form is hashed,
logged and compared. Every mistake becomes a :class:`resnet.UserError` of one line.
"""

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from resnet import UserError
from resnet.shell import ROOT

EXPERIMENTS = ROOT / "experiments"
CLAIMS = EXPERIMENTS / "claims.yaml"

Monitor = Literal["accuracy", "loss", "val_accuracy", "val_loss"]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Momentum = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Delta = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


def _printable(text: str) -> str:
    # others steer the terminal, or may not stand in an SVG
    if odd := [c for c in text if not c.isprintable() and unicodedata.category(c) != "Zs"]:
        raise ValueError(f"the character {odd[0]!a} cannot be printed; leave it out")
    if not text.strip():
        raise ValueError("it is blank")
    return text


def _joined(text: str) -> str:
    return _printable(" ".join(text.split("\n")).strip())


Name = Annotated[str, AfterValidator(_printable)]
Text = Annotated[str, AfterValidator(_joined)]
"""Printable, any kind of blank included; the lines that it has in a file become one."""


class Strict(BaseModel):
    """Refuses unknown keys and silent conversions (``"25"`` or ``true`` is not 25)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Residual(Strict):
    """The study's bottleneck residual network; see :func:`resnet.models.residual_network`."""

    architecture: Literal["residual"]
    identity_blocks: Annotated[
        list[Annotated[int, Field(ge=0, le=100)]], Field(min_length=3, max_length=3)
    ]
    dropout: Fraction
    batch_norm_momentum: Momentum


class VGG(Strict):
    """The comparison of the study's section 4; see :func:`resnet.models.vgg_like`."""

    architecture: Literal["vgg"]
    filters: Annotated[list[Count], Field(min_length=1, max_length=5)]
    convolutions: Count
    dense: Annotated[list[Count], Field(max_length=5)]
    dropout: Fraction
    batch_norm_momentum: Momentum


class Augmentation(Strict):
    """The random affine transform, named as in Keras's ``ImageDataGenerator``."""

    rotation_range: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)]
    """Degrees; the angle is uniform in [-rotation_range, rotation_range]."""
    width_shift_range: Fraction
    """Fraction of the width."""
    height_shift_range: Fraction
    """Fraction of the height."""
    zoom_range: Fraction
    """Each axis is zoomed by its own factor in [1 - zoom_range, 1 + zoom_range]."""
    horizontal_flip: bool


class Validation(Strict):
    """Which training images are held out, and how they are looked at."""

    fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    subset: Literal["first", "last"]
    augmented: bool
    """The study's generator augments its validation images too."""
    drop_remainder: bool
    """Leave out the last, incomplete batch, of training too (the study's ``n // 32`` steps)."""


class Data(Strict):
    """How images become batches."""

    pixel_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Pixels (0..255) are divided by this."""
    validation: Validation
    augmentation: Augmentation | None


class EarlyStopping(Strict):
    """Keras's callback of that name."""

    monitor: Monitor
    patience: Count
    min_delta: Delta
    restore_best_weights: Literal["always", "when_stopped", "never"]
    """``always`` is Keras 3's rule, ``when_stopped`` Keras 2's (only if stopping triggered)."""


class ReduceLROnPlateau(Strict):
    """Keras's callback of that name, without cooldown."""

    monitor: Monitor
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    patience: Count
    min_delta: Delta
    min_lr: Delta


class Training(Strict):
    """Adam on the categorical cross-entropy."""

    epochs: Count
    batch_size: Count
    learning_rate: Rate
    early_stopping: EarlyStopping | None
    reduce_lr_on_plateau: ReduceLROnPlateau | None


class Alternative(Strict):
    """A value that an assumption could have had as well."""

    value: Any
    reason: Text


class Experiment(Strict):
    """One fully explicit experiment.

    ``assumed`` maps each key (``training.epochs``) whose value the study does not state to the
    reason for the value chosen; a key of a child file set to null states it after all.
    ``alternatives`` maps such keys to other values, see :mod:`resnet.ablation`.
    """

    name: Name
    title: Annotated[str, Field(max_length=80), AfterValidator(_joined)]
    model: Annotated[Residual | VGG, Field(discriminator="architecture")]
    data: Data
    training: Training
    assumed: dict[str, Text]
    alternatives: dict[str, list[Alternative]] = {}

    def flat(self, **options: Any) -> dict[str, Any]:
        """Everything that shapes the result as ``{"training.epochs": 25, ...}``.

        Args:
            **options: of pydantic's ``model_dump``.
        """
        tree = self.model_dump(include={"model", "data", "training"}, **options)
        return dict(_flatten(tree))

    def hash(self) -> str:
        """SHA-256 (hex) of what shapes the result; title and assumptions do not.

        A default does not enter it: a key that the schema is given later, with a default that
        means "as before", leaves runs, records and states what they were.
        """
        return _digest(self.flat(exclude_defaults=True))

    def trajectory(self) -> str:
        """SHA-256 (hex) of what shapes the weights on their way.

        How long they are trained, and when to stop, decides only which of them are tested. The
        schedule shapes them, but no sooner than it first changes the rate.
        """
        aside = ("epochs", "early_stopping", "reduce_lr_on_plateau")
        flat = self.flat(exclude_defaults=True)
        return _digest({k: v for k, v in flat.items() if k.split(".")[1] not in aside})

    def program(self) -> str:
        """SHA-256 (hex) of what shapes the compiled training step and how many there are.

        Which images are held out, how far an image is turned, the learning rate and when it drops
        are data of a step.
        """
        data = (
            *("training.epochs", "training.early_stopping", "training.reduce_lr_on_plateau"),
            *("training.learning_rate", "data.validation.subset", "data.augmentation."),
        )
        shape = {key: value for key, value in self.flat().items() if not key.startswith(data)}
        return _digest(shape | {"augmented": self.data.augmentation is not None})

    def to_yaml(self) -> str:
        """The resolved experiment as YAML, every value explicit."""
        tree = self.model_dump(exclude={"alternatives"})
        return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True)
class Job:
    """One experiment with one seed: what is trained, recorded and found again."""

    experiment: Experiment
    seed: int
    modified: str = ""
    """The ``--set`` overrides: such runs stand apart, even where a rung had the value already."""

    def training(self) -> tuple[str, int]:
        """What jobs that can share their states have in common; they never train side by side."""
        return self.experiment.trajectory(), self.seed


class Profile(Strict):
    """A named variation of every rung, for trying the machinery; ``experiments/profiles``."""

    description: Text
    data: Name
    changes: dict[str, Any]


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def keys(part: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """What ``--set`` may change, ``model.dropout`` and all others, in the schema's order."""
    found: list[str] = []
    for name, field in part.model_fields.items():
        options = [field.annotation, *get_args(field.annotation)]
        blocks = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        for block in blocks:
            found += keys(block, f"{prefix}{name}.")
        if not blocks and prefix:  # name, title and assumed shape no result
            found.append(prefix + name)
    return list(dict.fromkeys(found))


def _flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


_LARGEST, _DEEPEST = 64_000, 20
"""Characters of a YAML text, and blocks within each other: any is read within a second or so."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core schema, no key twice, and no aliases.

    By YAML 1.1, PyYAML's own, 010 is 8, 1:30 is 90, and 1e-4 is text.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own way
    yaml_constructors = {  # noqa: RUF012
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (None, *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")))
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # a few lines of them can stand for billions
            _refuse(f"the alias *{event.anchor} is not read: write out what it stands for", event)
        self.depth += 1
        if self.depth > _DEEPEST:
            _refuse(f"nested more than {_DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = super().construct_mapping(node, deep)
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key)
            if not isinstance(name, str):
                _refuse(f"the key {name!r} is not text", key)
            if name in seen:
                _refuse(f"the key {name!r} stands there twice", key)
            seen.add(name)
        return mapping


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, with quotes around what either version of YAML reads as no text."""


def _refuse(problem: str, at: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _core_schema(kind: str, pattern: str, convert: Callable[[str], Any]) -> None:
    tag, form = f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z")

    def construct(loader: _Loader, node: yaml.ScalarNode) -> Any:
        text = loader.construct_scalar(node)
        if not form.match(text):  # it has its tag from the file
            _refuse(f"{text!r} is no {kind}", node)
        return convert(text)

    _Loader.add_constructor(tag, construct)
    for schema in (_Loader, _Dumper):
        schema.add_implicit_resolver(tag, form, None)


_core_schema("null", "~|null|Null|NULL|", lambda text: None)
_core_schema("bool", "true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true")
_core_schema(
    "int",  # what a float can hold as well, so that none is too large for pydantic or to be shown
    "[-+]?[0-9]{1,200}|0o[0-7]{1,200}|0x[0-9a-fA-F]{1,200}",
    lambda text: int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)),
)
_core_schema(
    "float",
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
)


def one_line(text: object) -> str:
    """A text as one line without control characters."""
    line = " ".join(str(text).split())
    # keep the terminal safe from control characters that came out of a file
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _short(value: object) -> str:
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping with the safe loader.

    Args:
        path: the file.

    Returns:
        The mapping.

    Raises:
        UserError: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path}: cannot be read: it is no file")
        with path.open(encoding="utf-8") as file:
            tree = _parse_yaml(file.read(_LARGEST + 1))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds {_short(tree)} where 'key: value' lines are expected")
    return tree


def _parse_yaml(text: str) -> Any:
    if len(text) > _LARGEST:
        raise ValueError(f"is longer than {_LARGEST} characters")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(
            f"{where}not valid YAML: {one_line(getattr(error, 'problem', None) or error)}"
        ) from None
    except (ValueError, OverflowError) as error:
        # PyYAML lets e.g. "\\UFFFFFFFF", which is no character, through to Python
        raise ValueError(f"not valid YAML: {one_line(error)}") from None


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it, mapping by mapping."""
    if change.get("architecture", base.get("architecture")) != base.get("architecture"):
        return change  # another network shares no settings with the one before
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _allowed(model: Any, location: tuple) -> str:
    """What a schema allows at a place, as a hint for an unknown key."""
    for part in location:
        if part in ("residual", "vgg"):
            model = Residual if part == "residual" else VGG
            continue
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        if field is None:
            return ""
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, Strict)), None)
    return ", ".join(model.model_fields) if model else ""


_HINTS = {"bool_type": ", true or false", "string_type": ", in quotes"}


def _explain(source: str, error: ValidationError, model: type[Strict]) -> UserError:
    """One line for pydantic's complaint: file, key, value and what is allowed."""
    errors = error.errors(include_url=False, include_context=False)
    # a mistyped key is also missing
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    location = first["loc"]
    key = ".".join(str(part) for part in location if part not in ("residual", "vgg"))
    if first["type"] == "extra_forbidden":
        allowed = _allowed(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), allowed.split(", "), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        text = f"{one_line(key)}: unknown key{hint}" + f"; allowed: {allowed}" * bool(allowed)
    elif first["type"] == "missing":
        text = f"{one_line(key)}: is missing"
    else:
        why = one_line(first["msg"].removeprefix("Value error, ")) + _HINTS.get(first["type"], "")
        text = f"{one_line(key)}: {_short(first['input'])} is not allowed: {why}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return UserError(f"{source}: {text}{more}")


def _resolve(source: str, base: dict[str, Any], changes: dict[str, Any]) -> Experiment:
    """``base`` with ``changes`` laid over it, validated."""
    source = one_line(source)  # what a user typed
    tree = _merge(base, changes)
    own = changes.get("assumed")
    if isinstance(own, dict):
        # null withdraws an assumption: the value is stated after all
        tree["assumed"] = {k: v for k, v in tree["assumed"].items() if v is not None}
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise _explain(source, error, Experiment) from None
    known = experiment.flat()

    def within(key: str, keys: Iterable[str]) -> bool:
        return any(k == key or k.startswith(f"{key}.") for k in keys)

    for key, reason in (own or {}).items():
        if not within(key, known) and reason is not None:
            raise UserError(f"{source}: assumed: {_short(key)} is not a key of this experiment")
    # a reason goes with the part or the value that it was for, unless it is given anew
    old = dict(_flatten(base))
    new = [key for key, value in known.items() if key not in old or old[key] != value]
    kept = [
        key
        for key in experiment.assumed
        if within(key, known) and (key in (own or ()) or not within(key, new))
    ]
    for key in changes.get("alternatives", ()):
        if key not in kept:
            raise UserError(f"{source}: alternatives: {_short(key)} is not among the assumed keys")
    left = {
        field: {key: value for key, value in getattr(experiment, field).items() if key in kept}
        for field in ("assumed", "alternatives")
    }
    return experiment.model_copy(update=left)


def load(path: Path, _children: tuple[Path, ...] = ()) -> Experiment:
    """Resolves one experiment file.

    Args:
        path: the YAML file. What it ``extends`` is looked up beside it, then in its parent
            folder, by name without ``.yaml``.

    Returns:
        The resolved experiment; its name is the file's stem.

    Raises:
        UserError: anything is wrong with the file or one it extends; the line names the file.
    """
    path = path.resolve()
    if path in _children:
        cycle = " -> ".join(p.stem for p in (*_children[_children.index(path) :], path))
        raise UserError(f"{_children[-1]}: extends: goes round in a circle: {cycle}")
    if len(_children) > 100:  # Python bounds it as well, with less to say
        raise UserError(f"{_children[0]}: extends: goes on for more than 100 files")
    tree = read_yaml(path)
    base: dict[str, Any] = {}
    parent = tree.pop("extends", None)
    if parent is not None:
        if not isinstance(parent, str) or not re.fullmatch(r"\w[\w.-]*", parent):
            raise UserError(f"{path}: extends: {_short(parent)} is not an experiment's name")
        places = [folder / f"{parent}.yaml" for folder in (path.parent, path.parent.parent)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(f"{path}: extends: there is no {places[0]}")
        base = load(found, (*_children, path)).model_dump()
    if "name" in tree:
        raise UserError(f"{path}: name: is taken from the file's name and cannot be set")
    return _resolve(str(path), base, tree | {"name": path.stem})


def from_yaml(text: str, source: str) -> Experiment:
    """Reads what :meth:`Experiment.to_yaml` wrote.

    Args:
        text: the resolved experiment.
        source: what to name in an error.

    Returns:
        The experiment.

    Raises:
        UserError: the text is no resolved experiment.
    """
    try:
        return Experiment.model_validate(_parse_yaml(text))
    except ValidationError as error:
        raise _explain(source, error, Experiment) from None
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


def change(experiment: Experiment, changes: dict[str, Any], source: str) -> Experiment:
    """Lays changes over an experiment.

    Args:
        experiment: the resolved experiment.
        changes: nested mapping, as in a file.
        source: what to name in an error, e.g. ``--set``.

    Returns:
        A new experiment; the reason why a value was assumed is gone where the value changed.

    Raises:
        UserError: the result is not a valid experiment.
    """
    return _resolve(source, experiment.model_dump(), changes)


STANDING = ("name", "title", "assumed", "alternatives")
"""What an experiment says of itself, which shapes no result."""


def parse_override(text: str) -> dict[str, Any]:
    """Reads one ``--set`` value.

    Args:
        text: ``key.path=value``, the value in YAML, e.g. ``training.epochs=2``.

    Returns:
        The nested mapping ``{"training": {"epochs": 2}}``.

    Raises:
        UserError: there is no ``=``, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or parts[0] in STANDING:
        raise UserError(
            f"--set {_short(text)}: write key=value with a key of model, data or training, "
            "e.g. --set training.epochs=2"
        )
    try:
        tree = _parse_yaml(value)
    except ValueError as error:
        raise UserError(f"--set {one_line(key)}: {error}") from None
    for part in reversed(parts):
        tree = {part: tree}
    return tree


def load_profile(name: str, folder: Path = EXPERIMENTS) -> Profile:
    """Loads ``experiments/profiles/<name>.yaml``.

    Raises:
        UserError: there is no such profile, or it is malformed.
    """
    known = {path.stem: path for path in _files(folder / "profiles")}
    if name not in known:
        raise UserError(f"--profile {_short(name)}: allowed: full, {', '.join(known)}")
    try:
        return Profile.model_validate(read_yaml(known[name]))
    except ValidationError as error:
        raise _explain(str(known[name]), error, Profile) from None


def apply_profile(experiment: Experiment, name: str) -> Experiment:
    """A rung as a profile varies it; ``full`` leaves it as it is.

    A part that the rung does not have (its ``early_stopping`` is null) is not given to it.
    """
    if name == "full":
        return experiment
    tree = experiment.model_dump()
    changes = _where_present(tree, load_profile(name).changes)
    return change(experiment, changes, f"--profile {name}: {experiment.name}")


def _where_present(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _where_present(tree[key], value)
        if isinstance(tree.get(key), dict) and isinstance(value, dict)
        else value
        for key, value in changes.items()
        if not (isinstance(value, dict) and key in tree and tree[key] is None)
    }


def find(folder: Path = EXPERIMENTS) -> dict[str, Path]:
    """Every experiment file by name, the numbered rungs first, in order."""
    paths = {path.stem: path for path in _files(folder)}
    return {name: paths[name] for name in rungs(paths)} | {
        path.stem: path for path in _files(folder / "baselines")
    }


def _files(folder: Path) -> list[Path]:
    """A folder's YAML files; hidden ones, such as ``._quick.yaml`` of macOS, are nobody's."""
    paths = sorted(folder.glob("*.yaml"))
    return [path for path in paths if path.stem.isprintable() and not path.name.startswith(".")]


def check_names(folder: Path = EXPERIMENTS) -> None:
    """Refuses a file that :func:`find` and :func:`load_profile` leave out though it looks meant.

    Raises:
        UserError: there is one; the line says what to call it.
    """
    ending = re.compile(r"\.ya?ml(\.txt)?$", re.IGNORECASE)
    numbered = (path for path in folder.glob("*") if path.name[0].isdecimal())
    found = {*find(folder).values(), *_files(folder / "profiles")}
    for path in (*numbered, *folder.glob("baselines/*"), *folder.glob("profiles/*")):
        if path in found or path.name.startswith(".") or not ending.search(path.name):
            continue
        name = re.sub(r"[^\w.-]+", "_", ending.sub("", path.name))
        if path.parent == folder:
            number = re.split(r"\D", name)[0]
            name = f"{int(number):02}_{name.removeprefix(number).lstrip('_.-') or 'mine'}"
        way_out = f"call it {name}.yaml" if path.name != f"{name}.yaml" else "another has its name"
        raise UserError(f"{one_line(path)}: would be left out: {way_out}, or put it elsewhere")


def rung_number(name: str) -> int | None:
    """5 for ``05_deeper_dropout``, None for a baseline and for a part of a step."""
    number, underscore, rest = name.partition("_")
    return int(number) if underscore and number.isdecimal() and "~" not in rest else None


def short(name: str) -> str:
    """``3`` for a rung, the name of anything else."""
    return str(rung_number(name) or name)


def rungs(names: Iterable[str]) -> list[str]:
    """The numbered ones among experiments, in the ladder's order."""
    numbers = {name: number for name in names if (number := rung_number(name)) is not None}
    return sorted(numbers, key=numbers.__getitem__)


def label(experiment: Experiment) -> str:
    """``3 + deeper + early stopping``; a part of a step is called by its title alone."""
    if "~" in experiment.name:
        return experiment.title
    return f"{short(experiment.name)} {experiment.title}"


def select(text: str, names: Iterable[str], option: str = "--ladder") -> list[str]:
    """Which experiments an option's value means.

    Args:
        text: comma-separated: ``all`` (the numbered rungs), numbers, ranges ``1-3``, names.
        names: the experiments there are.
        option: to be named in an error.

    Returns:
        Names in the ladder's order, each once.

    Raises:
        UserError: a part names nothing there is, or two of the chosen have one number.
    """
    names = list(names)
    numbers = {name: number for name in names if (number := rung_number(name)) is not None}
    chosen: set[str] = set()
    for part in (part.strip() for part in text.split(",")):
        span = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if part == "all":
            chosen.update(numbers)
        elif span and span[1]:
            wanted = range(int(span[1]), int(span[2] or span[1]) + 1)
            missing = [str(number) for number in wanted if number not in numbers.values()]
            if missing or not wanted:
                raise UserError(
                    f"{option} {part}: there is no rung {missing[0] if missing else part}; "
                    f"allowed: 1 to {max(numbers.values(), default=0)}"
                )
            chosen.update(name for name, number in numbers.items() if number in wanted)
        elif part in names:
            chosen.add(part)
        else:
            raise UserError(
                f"{option} {_short(part)}: allowed: all, numbers such as 2,5 or 1-3, "
                f"or a name: {', '.join(names)}"
            )
    for one, other in pairwise(rungs(chosen)):
        if numbers[one] == numbers[other]:
            raise UserError(
                f"{option} {_short(text)}: {', '.join(sorted((one, other)))}: there are two of "
                f"number {numbers[one]}; name one of them, or give one another number"
            )
    return [name for name in names if name in chosen]


def changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """The difference of two flat configurations, one line a setting or a block of them."""
    lines: list[str] = []
    blocks: dict[str, list[str]] = {}
    for key in [*after, *(key for key in before if key not in after)]:
        if before.get(key) == after.get(key):
            continue
        block, _, leaf = key.rpartition(".")
        if key not in before and before.get(block, "") is None:
            blocks.setdefault(block, []).append(f"{leaf} {_text(after[key])}")
        elif key not in after and after.get(block, "") is None:
            blocks[block] = ["off"]
        else:
            lines.append(f"{key}: {_text(before.get(key))} -> {_text(after.get(key))}")
    return (*lines, *(f"{block}: {', '.join(parts)}" for block, parts in blocks.items()))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
