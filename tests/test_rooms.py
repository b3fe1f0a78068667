"""The house's own rules, as far as import-linter has no contract for them."""

import ast
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
# Heavy modules of a room that are no part of what it exports, so that the room is there at once.
LATE = {
    "resnet.engines.cluster",
    "resnet.engines.lanes",
    "resnet.terminal.display",
    "resnet.terminal.plan",
}
OPEN = ("resnet.host.", "report.presentation.")
"""Rooms without walls: plain functions for everyone, and what only the command line shows."""


def exported(package):
    """What a room's ``__init__`` imports from within it."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package)
        for alias in node.names
    }


def test_nobody_imports_another_rooms_insides():
    graph = grimp.build_graph("resnet", "report")
    found = []
    for importer in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(importer):
            package, _, room_and_module = imported.partition(".")
            room, dot, module = room_and_module.partition(".")
            own = importer.startswith(f"{package}.{room}")
            if not dot or own or imported in LATE or imported.startswith(OPEN):
                continue
            if module not in exported(f"{package}.{room}"):
                found.append(f"{importer} -> {imported}")
    assert not found


def modules():
    for folder in ("resnet", "report", "benchmarks"):
        yield from (ROOT / folder).rglob("*.py")
    yield ROOT / "runner.py"


def test_modules_and_functions_are_short():
    long = []
    for path in modules():
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        if (lines := text.count("\n")) > 450:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{name}: {node.name}: {node.end_lineno - node.lineno + 1} lines")
    assert not long


def test_every_room_says_what_it_is_for():
    for path in modules():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
