"""Describes the keys that experiments may set, for ``ladder keys`` and for error messages."""

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from resnet import UserError
from resnet.host.messages import one_line
from resnet.study import signatures
from resnet.study.files import short_repr
from resnet.study.schema import Experiment

M = TypeVar("M", bound=BaseModel)
JsonSchema = dict[str, Any]
_TYPES = {
    **{"integer": "a whole number", "number": "a number", "boolean": "true or false"},
    **{"string": "text in quotes", "null": "null", "object": "a block of keys"},
}
_BOUNDS = {
    **{"minimum": "at least", "exclusiveMinimum": "above"},
    **{"maximum": "at most", "exclusiveMaximum": "below"},
    **{"minLength": "of at least", "maxLength": "of at most"},
}
# Matches sentences of Keras's docstrings that only repeat a type or a default.
_TYPED = re.compile(
    r"(an? )?(python|float|bool|boolean|int)[^.]{0,30}\.$|.*\b(callable|defaults)\b|when none",
    re.IGNORECASE,
)


class Setting(NamedTuple):
    """A key that experiments may set; ``of`` names the network or Keras class that has the key."""

    key: str
    of: str
    type: str
    default: str
    about: str


def settings(networks: str = "") -> Iterator[Setting]:
    """Yields every key of an experiment. ``networks`` is the text of a study's ``networks.py``."""
    shipped = signatures.architectures(signatures.SHIPPED.read_text("utf-8"), "")
    named = {
        "model.architecture": shipped | signatures.architectures(networks, signatures.OWN),
        "training.optimizer.name": signatures.of_keras("optimizers"),
        "training.schedule.name": signatures.of_keras("schedules"),
    }
    root = Experiment.model_json_schema()
    for section in ("model", "data", "training"):
        for setting in _settings(root["properties"][section], root, section):
            block = setting.key.rpartition(".")[0]
            if schemas := named.get(setting.key):
                yield setting._replace(type=words({"enum": [*schemas]}))
                for name, model in schemas.items():
                    inner = model.model_json_schema()
                    yield from _settings(inner, inner, block, name)
            elif not setting.key.endswith("_sha256"):
                yield setting


def _settings(node: JsonSchema, root: JsonSchema, prefix: str, of: str = "") -> Iterator[Setting]:
    for block in _branches(node, root):
        for name, inner in block.get("properties", {}).items():
            if any("properties" in branch for branch in _branches(inner, root)):
                yield from _settings(inner, root, f"{prefix}.{name}", of)
                continue
            required = name in block.get("required", ())
            default = "required" if required else json.dumps(inner.get("default"))
            about = " ".join(inner.get("description", "").replace("``", "").split())
            sentences = [s for s in re.split(r"(?<=\.) ", about) if not _TYPED.match(s)] or [""]
            about = sentences[0][:1].upper() + sentences[0][1:]
            yield Setting(f"{prefix}.{name}", of, words(inner, root), default, about)


def _branches(node: JsonSchema, root: JsonSchema) -> Iterator[JsonSchema]:
    """Yields the schemas that a value may match, after resolving unions and references."""
    if reference := node.get("$ref"):
        yield from _branches(root["$defs"][reference.rpartition("/")[2]], root)
    elif "anyOf" in node:
        for inner in node["anyOf"]:
            yield from _branches(inner, root)
    else:
        yield node


def words(node: JsonSchema, root: JsonSchema | None = None) -> str:
    """Describes what a schema allows, e.g. ``a whole number``; references point into ``root``."""
    if "$ref" in node or "anyOf" in node:
        allowed = dict.fromkeys(words(branch, root) for branch in _branches(node, root or node))
        return " or ".join(allowed).replace("a whole number or a number", "a number")
    if values := node.get("enum", [node["const"]] if "const" in node else []):
        return "one of " * (len(values) > 1) + ", ".join(map(str, values))
    if node.get("type") == "array":
        least, most = node.get("minItems", 0), node.get("maxItems")
        count = "" if most is None else f"{most} " if least == most else f"{least} to {most} "
        return f"a list of {count}values, each {words(node.get('items', {}), root)}"
    kind = _TYPES.get(node.get("type", ""), "any value")
    bounds = " and ".join(f"{text} {node[key]:g}" for key, text in _BOUNDS.items() if key in node)
    return f"{kind}, {bounds}{' characters' * ('text' in kind)}" if bounds else kind


def _place(location: tuple, root: JsonSchema) -> tuple[list[str], JsonSchema]:
    """Returns the keys in the location of a pydantic error, and the schema at that location.

    A location may also name members of unions. These names are not keys, and are left out.
    """
    path, node = [], root
    for part in location:
        for branch in _branches(node, root):
            inner = branch.get("properties", {}).get(part, branch.get("additionalProperties"))
            inner = branch.get("items") if isinstance(part, int) else inner
            if isinstance(inner, dict):
                path.append(str(part))
                node = inner
                break
    return path, node


def validate(model: type[M], tree: Any, source: str, above: str = "") -> M:
    """Makes a model from a tree. Raises the error from :func:`explain` if the tree is invalid."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise explain(source, error, model, above) from None


def explain(
    source: str, error: ValidationError, model: type[BaseModel], above: str = ""
) -> UserError:
    """Describes one of pydantic's errors in one line, with source, key, value and allowed values.

    If only a block of the source was validated, ``above`` is the block's key.
    """
    root = model.model_json_schema()
    # a misspelled required key causes two errors; "unknown key" helps more than "is missing"
    first = min(error.errors(), key=lambda error: error["type"] != "extra_forbidden")
    kind, value = first["type"], short_repr(first["input"])
    path, node = _place(first["loc"], root)
    if kind == "extra_forbidden":
        unknown = str(first["loc"][-1])
        path.append(unknown)
        allowed = [key for b in _branches(node, root) for key in b.get("properties", ())]
        problem = f"unknown key{nearest(unknown, allowed)}; allowed: {', '.join(allowed)}"
    elif kind == "missing":
        problem = "is missing"
    elif kind in ("value_error", "json_invalid"):
        problem = one_line(first["msg"].removeprefix("Value error, "))
        problem = f"{value} is not allowed: {problem}" if path else problem
    else:
        problem = f"{value} is not allowed; it must be {words(node, root)}"
    key = one_line(".".join([above] * bool(above) + path))
    return UserError(f"{source}: {f'{key}: ' if key else ''}{problem}")


def nearest(name: str, allowed: list[str]) -> str:
    """Returns ``(did you mean ...?)`` for the most similar allowed name, or "" if there is none."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
