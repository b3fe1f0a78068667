"""The keys of experiments: type, default and meaning of each, and errors in the same words."""

import difflib
import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from resnet import UserError
from resnet.host.shell import one_line
from resnet.study import signatures
from resnet.study.files import short_repr
from resnet.study.schema import Experiment

Schema = dict[str, Any]
"""A JSON schema, as pydantic makes it."""
_TYPES = {
    **{"integer": "a whole number", "number": "a number", "boolean": "true or false"},
    **{"string": "text in quotes", "null": "null", "object": "a block of keys"},
}
_BOUNDS = {
    **{"minimum": "at least", "exclusiveMinimum": "above"},
    **{"maximum": "at most", "exclusiveMaximum": "below"},
    **{"minLength": "of at least", "maxLength": "of at most"},
}
# Keras's docstrings begin with the type
_TYPED = re.compile(
    r"(an? )?(python|float|bool|boolean|int)[^.]{0,30}\.$|.*\b(callable|defaults)\b|when none",
    re.IGNORECASE,
)


class Setting(NamedTuple):
    """A key that an experiment may set, in words; ``of`` is the network or class that takes it."""

    key: str
    of: str
    type: str
    default: str
    about: str


def settings(networks: str = "") -> Iterator[Setting]:
    """Yields every key of experiments.

    Args:
        networks: text of a study's ``networks.py``.
    """
    shipped = signatures.architectures(signatures.SHIPPED.read_text("utf-8"), "")
    named = {
        "model.architecture": shipped | signatures.architectures(networks, signatures.OWN),
        "training.optimizer.name": signatures.of_keras("optimizers"),
        "training.schedule.name": signatures.of_keras("schedules"),
    }
    schema = Experiment.model_json_schema()
    for part in ("model", "data", "training"):
        for setting in _settings(schema["properties"][part], schema, part):
            block = setting.key.rpartition(".")[0]
            if schemas := named.get(setting.key):
                yield setting._replace(type=words({"enum": [*schemas]}))
                for name, model in schemas.items():
                    inner = model.model_json_schema()
                    yield from _settings(inner, inner, block, name)
            elif not setting.key.endswith("_sha256"):
                yield setting


def _settings(node: Schema, root: Schema, prefix: str, of: str = "") -> Iterator[Setting]:
    for block in _branches(node, root):
        for name, inner in block.get("properties", {}).items():
            if any("properties" in branch for branch in _branches(inner, root)):
                yield from _settings(inner, root, f"{prefix}.{name}", of)
                continue
            default = "required"
            if name not in block.get("required", ()):
                default = short_repr(inner.get("default")).replace("None", "null")
                default = {"True": "true", "False": "false"}.get(default, default)
            about = " ".join(inner.get("description", "").replace("``", "").split())
            told = [s for s in re.split(r"(?<=\.) ", about) if not _TYPED.match(s)] or [""]
            about = told[0][:1].upper() + told[0][1:]
            yield Setting(f"{prefix}.{name}", of, words(inner, root), default, about)


def _branches(node: Schema, root: Schema) -> Iterator[Schema]:
    """The schemas that a value may fit: of a union each, of a reference what it is to."""
    if reference := node.get("$ref"):
        yield from _branches(root["$defs"][reference.rpartition("/")[2]], root)
    elif "anyOf" in node:
        for inner in node["anyOf"]:
            yield from _branches(inner, root)
    else:
        yield node


def words(node: Schema, root: Schema | None = None) -> str:
    """Says in words what a schema allows: ``a whole number, at least 1``.

    Args:
        node: the schema.
        root: the one that its references are to.
    """
    if "$ref" in node or "anyOf" in node:
        parts = dict.fromkeys(words(b, root) for b in _branches(node, root or node))
        return " or ".join(parts).replace("a whole number or a number", "a number")
    if "enum" in node or "const" in node:
        allowed = [str(value) for value in node.get("enum", [node.get("const")])]
        return allowed[0] if len(allowed) == 1 else f"one of {', '.join(allowed)}"
    if node.get("type") == "array":
        least, most = (str(node.get(key, "")) for key in ("minItems", "maxItems"))
        count = least if least == most else f"{least or 0} to {most}" if most else ""
        each = words(node.get("items", {}), root)
        return f"a list of {count + ' values' if count else 'values'}, each {each}"
    bounds = [f"{text} {node[key]:g}" for key, text in _BOUNDS.items() if key in node]
    kind = _TYPES.get(node.get("type", ""), "any value")
    unit = " characters" * (kind == _TYPES["string"])
    return f"{kind}, {' and '.join(bounds)}{unit}" if bounds else kind


@functools.cache
def _json_schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _place(model: type[BaseModel], location: tuple) -> tuple[list[str], list[Schema], Schema]:
    """Follows a location of pydantic's, which names branches of unions too, into a schema.

    Returns:
        The keys on the way, the schemas that the value there may fit, and the root.
    """
    root = _json_schema(model)
    path, at = [], [root]
    for part in location:
        inner = [
            found
            for node in at
            if (found := node.get("properties", {}).get(part, node.get("additionalProperties")))
            or (isinstance(part, int) and (found := node.get("items")))
        ]
        if inner := [node for node in inner if isinstance(node, dict)]:
            path.append(str(part))
            at = [branch for node in inner for branch in _branches(node, root)]
    return path, at, root


def explain(
    source: str, error: ValidationError, model: type[BaseModel], above: str = ""
) -> UserError:
    """Makes one line of pydantic's complaint about a model: source, key, value, what is allowed.

    Args:
        source: the file, or what a user typed.
        error: pydantic's.
        model: what was validated.
        above: the key of it, if it is a part of something.
    """
    errors = error.errors(include_url=False, include_context=False)
    # a mistyped key is also missing
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    location = first["loc"]
    unknown = first["type"] == "extra_forbidden"
    path, at, root = _place(model, location[:-1] if unknown else location)
    key = one_line(".".join([above] * bool(above) + path))
    if unknown:
        allowed = [name for node in at for name in node.get("properties", ())]
        key = one_line(".".join(filter(None, (key, str(location[-1])))))
        text = f"{key}: unknown key{nearest(str(location[-1]), allowed)}"
        text += f"; allowed: {', '.join(allowed)}" * bool(allowed)
    elif first["type"] == "missing":
        text = f"{key}: is missing"
    elif first["type"] in ("value_error", "json_invalid"):  # says by itself what is wrong
        why = one_line(first["msg"].removeprefix("Value error, "))
        text = f"{key}: {short_repr(first['input'])} is not allowed: {why}" if key else why
    else:
        text = f"{key}: {short_repr(first['input'])} is not allowed; it must be "
        text += words({"anyOf": at}, root)
    # a file may hold thousands of mistakes
    others = [".".join(_place(model, e["loc"])[0]) for e in errors[:20] if e is not first]
    others = [name for name in dict.fromkeys(others) if name and name not in key]
    more = f" (also wrong: {one_line(', '.join(others[:4]))})" if others else ""
    return UserError(f"{source}: {text}{more}")


def nearest(name: str, allowed: list[str]) -> str:
    """Returns a hint at the nearest of some names, or nothing."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
