"""Reads YAML files: the safe loader, the core schema of YAML 1.2, neither aliases nor tags."""

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from resnet import UserError
from resnet.host.messages import one_line

_LONGEST, _DEEPEST = 64_000, 20
"""Characters of a YAML text, and nested blocks in it: any such text is read within a second."""
_CORE_SCHEMA = {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # a float holds 200 digits too, so that pydantic can compare any of these with its bounds
    "int": "[-+]?[0-9]{1,200}|0o[0-7]{1,200}|0x[0-9a-fA-F]{1,200}",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
    r"|\.(nan|NaN|NAN)",
}


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2; in YAML 1.1, 010 is 8, 1:30 is 90, no is false, and 1e-4 is text."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own way
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # a few lines of aliases can stand for billions
            _refuse(f"the alias *{event.anchor} is not read: write out what it stands for", event)
        if tag := getattr(event, "tag", None):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            _refuse(f"the tag {name} is not read: leave it out, and put text in quotes", event)
        self.depth += 1
        if self.depth > _DEEPEST:
            _refuse(f"nested more than {_DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                _refuse(f"the key {short_repr(name)} is not text", key)
            if name in seen:
                _refuse(f"the key {short_repr(name)} stands there twice", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


class Dumper(yaml.SafeDumper):
    """Puts text in quotes if either version of YAML would read it as anything else."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _kind, _pattern in _CORE_SCHEMA.items():
    for _schema in (_Loader, Dumper):
        _form = re.compile(rf"(?:{_pattern})\Z")
        _schema.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _form, None)


def _refuse(problem: str, at: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def short_repr(value: object) -> str:
    """Writes a value in at most 60 characters of one line."""
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(path: Path) -> str:
    """Reads a file in UTF-8; a UserError names a file that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping from a file; a UserError names the mistake in the file."""
    tree = parse(read_text(path), str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds {short_repr(tree)} where 'key: value' lines are expected")
    return tree


def sweep(text: str) -> list[str]:
    """Splits a ``--set`` with a list of values, ``key=4, "a, b"``, into one ``--set`` per value.

    Values stay as they are written. A text without a YAML list of two or more stays whole.
    """
    key, _, values = text.partition("=")
    within = f"[{values}]"
    try:
        node = yaml.compose(within, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError):
        return [text]
    nodes = node.value if isinstance(node, yaml.SequenceNode) else []
    found = [within[inner.start_mark.index : inner.end_mark.index] for inner in nodes]
    # "a: 1, b: 2" is a mapping without its braces
    bare = any(isinstance(n, yaml.MappingNode) and within[n.start_mark.index] != "{" for n in nodes)
    if bare or len(found) < 2:
        return [text]
    return [f"{key}={value}" for value in dict.fromkeys(found)]


def parse(text: str, source: str) -> Any:
    """Reads a YAML text; a UserError names the source and the line of a mistake."""
    if len(text) > _LONGEST:
        raise UserError(f"{source}: is longer than {_LONGEST} characters")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets e.g. "\\UFFFFFFFF", which is no character, through to Python
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = one_line(getattr(error, "problem", None) or error)
        raise UserError(f"{source}: {where}not valid YAML: {problem}") from None
