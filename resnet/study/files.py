"""YAML as it is read here: the safe loader, version 1.2's core schema, and no surprises."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from resnet import UserError
from resnet.host.shell import one_line

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


class Dumper(yaml.SafeDumper):
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
    for schema in (_Loader, Dumper):
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


def short_repr(value: object) -> str:
    """Writes a value in at most 60 characters of one line."""
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
            tree = parse(file.read(_LARGEST + 1))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds {short_repr(tree)} where 'key: value' lines are expected")
    return tree


def elements(text: str) -> list[str]:
    """Splits the inside of a YAML list, such as ``4, "a, b", [5, 6]``, into its elements.

    Returns:
        The elements as they are written; the text alone if it is no list of two or more.
    """
    within = f"[{text}]"
    try:
        node = yaml.compose(within, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError):
        return [text]
    parts = node.value if isinstance(node, yaml.SequenceNode) else []
    found = [within[part.start_mark.index : part.end_mark.index] for part in parts]
    # "a: 1, b: 2" is a mapping whose braces were forgotten
    bare = (
        isinstance(part, yaml.MappingNode) and not written.startswith("{")
        for part, written in zip(parts, found, strict=True)
    )
    return [text] if any(bare) or len(found) < 2 else found


def parse(text: str) -> Any:
    """Reads a YAML text.

    Raises:
        ValueError: it is too long or not YAML; the text says in which line.
    """
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
