"""Reads from source code which settings a function takes, without running the code.

Experiments may set the parameters of network functions and of Keras's optimizers and schedules.
Commands that train nothing check these settings without importing Keras or a study's code.
"""

import ast
import contextlib
import functools
import importlib.util
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import Field, create_model

from resnet import ROOT, UserError
from resnet.study.schema import Strict

SHIPPED = ROOT / "resnet" / "network" / "models.py"  # the project's architectures
OWN = "networks.py"  # a study's own architectures, in the folder of its rungs

_ANNOTATIONS: dict[str, Any] = {
    **{"Annotated": Annotated, "Any": Any, "Field": Field, "Literal": Literal},
    **{"Optional": Optional, "Union": Union, "Sequence": list, "bool": bool, "dict": dict},
    **{"float": float, "int": int, "list": list, "str": str, "tuple": list},
}
# Experiments set these parameters with other keys, or cannot set them.
_NO_SETTINGS = re.compile(
    "self|input_shape|classes|name|dtype|(initial_)?learning_rate|(use_)?ema.*|loss_scale.*"
    "|exclude_.*|kwargs"
)
_NO_CLASSES = {
    *("Optimizer", "LearningRateSchedule"),  # base classes
    *("LegacyOptimizerWarning", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"),
    "ScheduleFreeAdamW",  # the network would have to be tested with averaged weights
}


@functools.cache
def architectures(source: str, file: str) -> dict[str, type[Strict]]:
    """Returns {architecture: schema of its settings} for the architectures in a source text.

    An architecture is a public function whose first parameters are ``input_shape`` and ``classes``.
    If the source is not Python, or a setting's type cannot be read, a UserError names the place.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{file}, line {line}: is not valid Python: {error.args[0]}") from None
    known = dict(_ANNOTATIONS)
    for node in tree.body:  # type aliases such as Count = Annotated[int, Field(ge=1)]
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(Exception):  # other assignments may raise any error
                known[node.targets[0].id] = _value(node.value, known)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            if names[:2] == ["input_shape", "classes"]:
                found[node.name] = _schema(node, known, file, ast.get_docstring(node) or "")
    return found


@functools.cache
def of_keras(kind: str) -> dict[str, type[Strict]]:
    """Returns {identifier: schema of its settings} for Keras's ``optimizers`` or ``schedules``."""
    spec = importlib.util.find_spec("keras")
    (package,) = (spec and spec.submodule_search_locations) or ("",)
    folder = Path(package) / "src" / "optimizers"
    # base_optimizer.py describes the parameters that all optimizers have in common
    common = (folder / "base_optimizer.py").read_text(encoding="utf-8")
    found = {}
    for path in sorted((folder / "schedules" if kind == "schedules" else folder).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or node.name in _NO_CLASSES:
                continue
            exported = any("keras_export" in ast.unparse(d) for d in node.decorator_list)
            for method in node.body if exported else ():
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    docstring = f"{ast.get_docstring(node)}\n{common}"
                    schema = _schema(method, _ANNOTATIONS, path.name, docstring)
                    found[_identifier(node.name)] = schema
    return found


def keras_class(module: Any, name: str) -> Any:
    """Returns the class with identifier ``name`` from a Keras module of optimizers or schedules."""
    return next(getattr(module, kind) for kind in dir(module) if _identifier(kind) == name)


def _identifier(name: str) -> str:
    """Returns ``piecewise_constant`` for ``PiecewiseConstantDecay`` and ``adamw`` for ``AdamW``."""
    if "Decay" not in name:
        return name.lower()
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.replace("Decay", "")).lower()


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    code = compile(ast.Expression(node), "<signature>", "eval")
    return eval(code, {"__builtins__": {}}, known)  # noqa: S307 - only known names are available


def _schema(node: ast.FunctionDef, known: dict[str, Any], file: str, about: str) -> type[Strict]:
    """Makes the schema of a function's settings, with descriptions from the docstring ``about``."""
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(plain) - len(node.args.defaults)) + node.args.defaults
    fields: dict[str, Any] = {}
    for parameter, expression in zip(
        [*plain, *node.args.kwonlyargs], [*defaults, *node.args.kw_defaults], strict=True
    ):
        name = parameter.arg
        if _NO_SETTINGS.fullmatch(name):
            continue
        try:
            default = _value(expression, known) if expression else ...
            typed = parameter.annotation
            kind = _value(typed, known) if typed else _kind(default)
        except Exception:  # the expression may raise any error
            raise UserError(
                f"{file}: {node.name}: {name}: the type or default cannot be read; use int, "
                "float, bool, str, list[...], Literal[...] or Annotated[..., Field(...)]"
            ) from None
        if isinstance(default, tuple):
            default = list(default)
        entry = re.search(rf"^ +{name}: (.*(\n {{8,}}.*)*)", about, re.MULTILINE)
        fields[name] = (kind, Field(default, description=entry[1] if entry else ""))
    return create_model(node.name, __base__=Strict, **fields)


def _kind(default: Any) -> Any:
    """Infers the type of a Keras parameter from its default, because Keras has no annotations."""
    number = Annotated[float, Field(allow_inf_nan=False)]
    if default is ...:
        return number | list[number]
    if isinstance(default, bool | str):
        return type(default)
    return number if isinstance(default, int | float) else int | number | None
