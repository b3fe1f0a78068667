"""From files to experiments: ``extends``, ``--set``, and one line for every mistake.

An experiment is a YAML file that states only what it changes against the one it ``extends``.
Resolving yields an :class:`Experiment` in which every value is explicit; that form is hashed,
logged and compared. Every mistake becomes a :class:`resnet.UserError` of one line.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resnet import UserError
from resnet.host.shell import one_line
from resnet.study import signatures
from resnet.study.files import elements, parse, read_yaml, short_repr
from resnet.study.keys import explain, nearest
from resnet.study.schema import Experiment, flatten
from resnet.study.signatures import Schema, architectures, of_keras


def _merge(base: dict[str, Any], change: dict[str, Any], top: bool = True) -> dict[str, Any]:
    """``base`` with ``change`` laid over it, mapping by mapping."""
    for name in ("architecture", "name"):
        # another network, or optimizer, shares no settings with the one before
        if not top and change.get(name, base.get(name)) != base.get(name):
            return change
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value, top=False)
        merged[key] = value
    return merged


def _complete(tree: dict[str, Any], source: str) -> None:
    """Checks what has settings of its own, and makes their defaults explicit.

    Raises:
        UserError: there is no architecture, optimizer or schedule of that name, or a setting is
            not allowed.
    """
    model, training = (tree.get(part) for part in ("model", "training"))
    if isinstance(model, dict) and "architecture" in model:
        own = architectures(tree.get("code", ""), signatures.OWN)
        schemas = architectures(signatures.SHIPPED.read_text("utf-8"), "") | own
        model.pop("code_sha256", None)
        _check(model, "architecture", schemas, source, "model")
        if model["architecture"] in own:
            model["code_sha256"] = hashlib.sha256(tree["code"].encode()).hexdigest()
        else:
            tree["code"] = ""
    for key, kind in (("optimizer", "optimizers"), ("schedule", "schedules")):
        if isinstance(training, dict) and isinstance(part := training.get(key), dict):
            _check(part, "name", of_keras(kind), source, f"training.{key}")


def _check(
    part: dict[str, Any], named: str, schemas: dict[str, Schema], source: str, key: str
) -> None:
    name = part.get(named)
    if not isinstance(name, str) or name not in schemas:
        raise UserError(
            f"{source}: {key}.{named}: {short_repr(name)} is not known"
            f"{nearest(str(name), [*schemas])}; allowed: {', '.join(schemas)}"
        )
    settings = {k: v for k, v in part.items() if k != named}
    try:
        made = schemas[name].model_validate(settings)
    except ValidationError as error:
        raise explain(source, error, schemas[name], key) from None
    part.clear()
    part[named] = name
    # Keras's "none" is left out: it means that the setting is not used
    part.update({k: v for k, v in made.model_dump().items() if v is not None})


def _resolve(source: str, base: dict[str, Any], changes: dict[str, Any]) -> Experiment:
    """``base`` with ``changes`` laid over it, validated."""
    source = one_line(source)  # what a user typed
    tree = _merge(base, changes)
    _complete(tree, source)
    own = changes.get("assumed")
    if isinstance(own, dict):
        # null withdraws an assumption: the value is stated after all
        tree["assumed"] = {k: v for k, v in tree["assumed"].items() if v is not None}
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise explain(source, error, Experiment) from None
    known = experiment.flat()

    def within(key: str, keys: Iterable[str]) -> bool:
        return any(k == key or k.startswith(f"{key}.") for k in keys)

    for key, reason in (own or {}).items():
        if not within(key, known) and reason is not None:
            raise UserError(f"{source}: assumed: {short_repr(key)} is not a key of this experiment")
    # a reason goes with the part or the value that it was for, unless it is given anew
    old = dict(flatten(base))
    new = [key for key, value in known.items() if key not in old or old[key] != value]
    kept = [
        key
        for key in experiment.assumed
        if within(key, known) and (key in (own or ()) or not within(key, new))
    ]
    for key in changes.get("alternatives", ()):
        if key not in kept:
            raise UserError(
                f"{source}: alternatives: {short_repr(key)} is not among the assumed keys"
            )
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
            raise UserError(f"{path}: extends: {short_repr(parent)} is not an experiment's name")
        places = [folder / f"{parent}.yaml" for folder in (path.parent, path.parent.parent)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(f"{path}: extends: there is no {places[0]}")
        base = load(found, (*_children, path)).model_dump()
    for folder in (path.parent, path.parent.parent):
        base["code"] = base.get("code") or own_networks(folder)
    if given := {"name", "code"} & {*tree}:
        raise UserError(f"{path}: {given.pop()}: is taken from a file and cannot be set")
    return _resolve(str(path), base, tree | {"name": path.stem})


def own_networks(folder: Path) -> str:
    """Returns the text of a study's ``networks.py``, "" if the folder holds none.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / signatures.OWN
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None


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
        return Experiment.model_validate(parse(text))
    except ValidationError as error:
        raise explain(source, error, Experiment) from None
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


STANDING = ("name", "title", "assumed", "alternatives", "code")
"""What an experiment says of itself, which shapes no result."""


def sweep(text: str) -> list[str]:
    """Splits one ``--set`` that lists several values into one for each.

    Args:
        text: ``key=value``, or ``key=value,value``. A value in brackets, braces or quotes may hold
            commas.

    Returns:
        ``key=value`` for each value, as one types it for that value alone.
    """
    key, equals, values = text.partition("=")
    return [f"{key}{equals}{value}" for value in dict.fromkeys(elements(values))]


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
            f"--set {short_repr(text)}: write key=value with a key of model, data or training, "
            "e.g. --set training.epochs=2"
        )
    try:
        tree = parse(value)
    except ValueError as error:
        raise UserError(f"--set {one_line(key)}: {error}") from None
    for part in reversed(parts):
        tree = {part: tree}
    return tree
