"""Checks rules on imports and code length that import-linter and ruff cannot check."""

import ast
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
# These modules are slow to import, so their packages do not export them.
LATE = {
    "resnet.engines.cluster",
    "resnet.engines.lanes",
    "resnet.terminal.display",
    "resnet.terminal.plan",
}
OPEN = ("resnet.host.", "report.presentation.")
"""Other packages may import the modules of these packages directly."""


def exported(package):
    """Returns the names that a package's ``__init__`` imports from the package's modules."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package)
        for alias in node.names
    }


def test_packages_import_only_exported_modules_of_other_packages():
    graph = grimp.build_graph("resnet", "report")
    found = []
    for importer in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(importer):
            *package, module = imported.split(".", 2)
            own = importer.startswith(".".join(package))
            if len(package) < 2 or own or imported in LATE or imported.startswith(OPEN):
                continue
            if module not in exported(".".join(package)):
                found.append(f"{importer} -> {imported}")
    assert not found


def modules():
    for folder in ("resnet", "report", "benchmarks"):
        yield from (ROOT / folder).rglob("*.py")
    yield ROOT / "runner.py"


def test_modules_have_at_most_450_lines_and_functions_at_most_60():
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
