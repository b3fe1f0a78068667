"""Resolves files and ``--set`` overrides into experiments in which every value is explicit.

A file states only the differences from the experiment that it ``extends``.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resnet import UserError
from resnet.host.messages import one_line
from resnet.study import signatures
from resnet.study.files import parse, read_text, read_yaml, short_repr
from resnet.study.keys import nearest, validate
from resnet.study.schema import Experiment, Strict, flatten


def _merge(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    for name in ("architecture", "name"):
        # the settings of one network or optimizer have no meaning for another
        if change.get(name, base.get(name)) != base.get(name):
            return change
    return base | {key: _merge(base.get(key), value) for key, value in change.items()}


def _complete(tree: dict[str, Any], source: str) -> None:
    """Checks the settings of the network, optimizer and schedule, and adds their defaults."""
    model, training = tree.get("model"), tree.get("training")
    if isinstance(model, dict) and "architecture" in model:
        own = signatures.architectures(tree.get("code", ""), signatures.OWN)
        shipped = signatures.architectures(signatures.SHIPPED.read_text("utf-8"), "")
        given = {key: value for key, value in model.items() if key != "code_sha256"}
        tree["model"] = _checked(given, "architecture", shipped | own, source, "model")
        if model["architecture"] in own:
            tree["model"]["code_sha256"] = hashlib.sha256(tree["code"].encode()).hexdigest()
        else:
            tree["code"] = ""
    for key, kind in (("optimizer", "optimizers"), ("schedule", "schedules")):
        if isinstance(training, dict) and isinstance(block := training.get(key), dict):
            known = signatures.of_keras(kind)
            settings = _checked(block, "name", known, source, f"training.{key}")
            tree["training"] = tree["training"] | {key: settings}


def _checked(
    block: dict[str, Any], named: str, schemas: dict[str, type[Strict]], source: str, key: str
) -> dict[str, Any]:
    name = block.get(named)
    if not isinstance(name, str) or name not in schemas:
        raise UserError(
            f"{source}: {key}.{named}: {short_repr(name)} is not known"
            f"{nearest(str(name), [*schemas])}; allowed: {', '.join(schemas)}"
        )
    given = {k: v for k, v in block.items() if k != named}
    settings = validate(schemas[name], given, source, key).model_dump()
    # a setting that is None has no effect in Keras, so the setting is left out
    return {named: name} | {k: v for k, v in settings.items() if v is not None}


def _within(key: str, keys: Iterable[str]) -> bool:
    """Checks whether a key is in ``keys``, or is a block that contains one of these keys."""
    return any(f"{k}.".startswith(f"{key}.") for k in keys)


def change(experiment: Experiment, changes: dict[str, Any], source: str) -> Experiment:
    """Applies changes to an experiment; ``changes`` is structured like a rung's file.

    A changed value loses its old reason in ``assumed``. Invalid changes raise a UserError.
    """
    return _resolve(source, experiment.model_dump(), changes)


def _resolve(source: str, base: dict[str, Any], changes: dict[str, Any]) -> Experiment:
    source = one_line(source)  # a user may have typed control characters
    tree = base | {key: _merge(base.get(key), value) for key, value in changes.items()}
    _complete(tree, source)
    reasons = changes.get("assumed")
    if isinstance(reasons, dict):
        # null removes a reason that comes from the extended experiment
        tree["assumed"] = {k: v for k, v in tree["assumed"].items() if v is not None}
    experiment = validate(Experiment, tree, source)
    known, old = experiment.flat(), dict(flatten(base))
    for key, reason in (reasons or {}).items():
        if reason is not None and not _within(key, known):
            raise UserError(f"{source}: assumed: {short_repr(key)} is not a key of this experiment")
    # a changed value or block loses its reason, unless the file gives a new reason
    changed = [key for key, value in known.items() if key not in old or old[key] != value]
    kept = {
        key
        for key in experiment.assumed
        if _within(key, known) and (key in (reasons or ()) or not _within(key, changed))
    }
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
    """Resolves an experiment's file; the file name without ``.yaml`` names the experiment.

    The value of ``extends`` names an experiment in the same folder or in the folder above.
    A UserError names the file that contains a mistake.
    """
    path = path.resolve()
    if path in _children:
        circle = " -> ".join(p.stem for p in (*_children, path))
        raise UserError(f"{path}: extends: the files extend each other in a circle: {circle}")
    folders = path.parent, path.parent.parent
    tree = read_yaml(path)
    base: dict[str, Any] = {}
    parent = tree.pop("extends", None)
    if parent is not None:
        if not isinstance(parent, str) or not re.fullmatch(r"\w[\w.-]*", parent):
            raise UserError(f"{path}: extends: {short_repr(parent)} is not an experiment's name")
        places = [folder / f"{parent}.yaml" for folder in folders]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(f"{path}: extends: there is no {places[0]}")
        base = load(found, (*_children, path)).model_dump()
    for folder in folders:
        base["code"] = base.get("code") or own_networks(folder)
    if given := {"name", "code"} & {*tree}:
        raise UserError(f"{path}: {given.pop()}: the program sets this key; remove it")
    return _resolve(str(path), base, tree | {"name": path.stem})


def own_networks(folder: Path) -> str:
    """Returns the text of a study's ``networks.py``, or "" if the file does not exist."""
    path = folder / signatures.OWN
    return read_text(path) if path.is_file() else ""


def from_yaml(text: str, source: str) -> Experiment:
    """Reads an experiment from the text of :meth:`Experiment.to_yaml`; errors name the source."""
    return validate(Experiment, parse(text, source), source)


def parse_override(text: str) -> dict[str, Any]:
    """Parses a ``--set`` override: ``training.epochs=2`` gives ``{"training": {"epochs": 2}}``."""
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path) or path[0] not in ("model", "data", "training"):
        raise UserError(
            f"--set {short_repr(text)}: write key=value, with a key that starts with "
            "model, data or training, e.g. --set training.epochs=2"
        )
    return nested(path, parse(value, f"--set {one_line(key)}"))


def nested(path: Iterable[str], value: Any) -> Any:
    """Returns ``{"training": {"epochs": 2}}`` for ``["training", "epochs"]`` and 2."""
    for key in reversed([*path]):
        value = {key: value}
    return value
