"""Reads YAML safely, with the core schema of YAML 1.2 and without aliases or tags."""

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from resnet import UserError
from resnet.host.messages import one_line

# Any text within these limits is read in less than a second.
_LONGEST, _DEEPEST = 64_000, 20  # characters, and levels of nested blocks
_CORE_SCHEMA = {
    "null": "~|null|Null|NULL|",
    "bool": "true|True|TRUE|false|False|FALSE",
    # at most 200 digits, so that pydantic can convert the number to a float and check bounds
    "int": "[-+]?[0-9]{1,200}|0o[0-7]{1,200}|0x[0-9a-fA-F]{1,200}",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
    r"|\.(nan|NaN|NAN)",
}


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2. YAML 1.1 would read 010 as 8, 1:30 as 90, "no" as false and 1e-4 as text."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - as PyYAML declares it
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):  # a few aliases can expand to billions of nodes
            _refuse(f"the alias *{event.anchor} is not supported; write out its value", event)
        if tag := getattr(event, "tag", None):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            _refuse(f"the tag {name} is not supported; remove it and put text in quotes", event)
        self.depth += 1
        if self.depth > _DEEPEST:
            _refuse(f"blocks are nested more than {_DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                _refuse(f"the key {short_repr(name)} is not text; put it in quotes", key)
            if name in seen:
                _refuse(f"the key {short_repr(name)} is given twice; remove one", key)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


class Dumper(yaml.SafeDumper):
    """Writes text in quotes if YAML 1.1 or 1.2 would read the bare text as another type."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _kind, _pattern in _CORE_SCHEMA.items():
    for _schema in (_Loader, Dumper):
        _form = re.compile(rf"(?:{_pattern})\Z")
        _schema.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _form, None)


def _refuse(problem: str, at: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def short_repr(value: object) -> str:
    """Returns a value's ``repr`` on one line of at most 60 characters."""
    text = one_line(repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(path: Path) -> str:
    """Reads a UTF-8 text file; if this fails, a UserError names the file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping from a YAML file; a UserError describes any mistake in the file."""
    tree = parse(read_text(path), str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: contains {short_repr(tree)}; write lines like 'key: value'")
    return tree


def sweep(text: str) -> list[str]:
    """Splits a ``--set`` override such as ``key=4,8`` into ``key=4`` and ``key=8``.

    Each value keeps its spelling. Only a list of at least two YAML values is split.
    """
    key, _, values = text.partition("=")
    within = f"[{values}]"
    try:
        node = yaml.compose(within, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError):
        return [text]
    nodes = node.value if isinstance(node, yaml.SequenceNode) else []
    found = [within[inner.start_mark.index : inner.end_mark.index] for inner in nodes]
    # "a: 1, b: 2" is a mapping that lacks its braces, not a list
    bare = any(isinstance(n, yaml.MappingNode) and within[n.start_mark.index] != "{" for n in nodes)
    if bare or len(found) < 2:
        return [text]
    return [f"{key}={value}" for value in dict.fromkeys(found)]


def parse(text: str, source: str) -> Any:
    """Reads a YAML text; if it has a mistake, a UserError names the source and the line."""
    if len(text) > _LONGEST:
        raise UserError(f"{source}: is longer than {_LONGEST} characters; shorten it")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # for an invalid character such as "\\UFFFFFFFF", Python's error has no line number
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = one_line(getattr(error, "problem", None) or error)
        raise UserError(f"{source}: {where}not valid YAML: {problem}") from None
