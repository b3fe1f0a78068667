"""The settings that a function takes, read off its source: nothing is imported or run for it.

An architecture, and Keras's optimizers and schedules, say by their parameters what an experiment
may set. Reading the source keeps commands that train nothing free of Keras and of a study's code.
"""

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from resnet import ROOT, UserError

SHIPPED = ROOT / "resnet" / "network" / "models.py"
"""The architectures that come with the project."""
OWN = "networks.py"
"""The file of a study's own architectures, beside its rungs."""

_ANNOTATIONS: dict[str, Any] = {
    **{"Annotated": Annotated, "Any": Any, "Field": Field, "Literal": Literal},
    **{"Optional": Optional, "Union": Union, "Sequence": list, "bool": bool, "dict": dict},
    **{"float": float, "int": int, "list": list, "str": str, "tuple": list},
}
# what experiments have keys of their own for, and settings that take more than a constructor
_ASIDE = re.compile(
    "self|name|dtype|(initial_)?learning_rate|(use_)?ema.*|loss_scale.*|exclude_.*|kwargs"
)
_LEFT_OUT = {
    *("LegacyOptimizerWarning", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"),
    "ScheduleFreeAdamW",  # tests other weights than those that it trains
}


class Settings(BaseModel):
    """What a signature's schema is a subclass of: unknown keys and conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Schema = type[Settings]


def architectures(source: str, file: str) -> dict[str, Schema]:
    """Reads the architectures of a file.

    Args:
        source: its text.
        file: its name, for errors.

    Returns:
        By name, the settings of each public function whose first parameters are ``input_shape`` and
        ``classes``.

    Raises:
        UserError: the text is no Python, or the type of a setting cannot be read.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{file}, line {line}: is not Python: {error.args[0]}") from None
    known = dict(_ANNOTATIONS)
    for node in tree.body:  # names of types, such as Count = Annotated[int, Field(ge=1)]
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value, known)
            if value is not _UNKNOWN:
                known[node.targets[0].id] = value
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            if names[:2] == ["input_shape", "classes"]:
                found[node.name] = _schema(node, known, file)
    return found


@functools.cache
def of_keras(kind: str) -> dict[str, Schema]:
    """Reads the settings of Keras's own classes.

    Args:
        kind: ``optimizers`` or ``schedules``.

    Returns:
        By the identifier (``sgd``, ``adamw``; ``piecewise_constant``, ``cosine``), the settings of
        the constructor but for the learning rate, which experiments have a key of their own for.
    """
    spec = importlib.util.find_spec("keras")
    (package,) = (spec and spec.submodule_search_locations) or ("",)
    folder = Path(package) / "src" / "optimizers" / ("schedules" if kind == "schedules" else "")
    found = {}
    # a string in this file is part of the docstrings of all optimizers
    shared = Path(package) / "src" / "optimizers" / "base_optimizer.py"
    common = shared.read_text(encoding="utf-8")
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or node.name in _LEFT_OUT or not _exported(node):
                continue
            for init in node.body:
                if isinstance(init, ast.FunctionDef) and init.name == "__init__":
                    about = f"{ast.get_docstring(node)}\n{common}"
                    schema = _schema(init, _ANNOTATIONS, path.name, about)
                    found[_identifier(node.name)] = schema
    return found


def keras_class(module: Any, name: str) -> Any:
    """Returns the class of an identifier in Keras's module of optimizers or schedules."""
    return next(getattr(module, kind) for kind in dir(module) if _identifier(kind) == name)


def _identifier(name: str) -> str:
    """``piecewise_constant`` for ``PiecewiseConstantDecay``, ``adamw`` for ``AdamW``."""
    if "Decay" not in name:
        return name.lower()
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.replace("Decay", "")).lower()


def _exported(node: ast.ClassDef) -> bool:
    """Whether Keras exports a class that somebody may name; bases are not."""
    text = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    return "keras_export" in text and node.name not in ("Optimizer", "LearningRateSchedule")


_UNKNOWN = object()


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """The value of an expression of known names, or ``_UNKNOWN``."""
    try:
        code = compile(ast.Expression(node), "<signature>", "eval")
        return eval(code, {"__builtins__": {}}, known)  # noqa: S307 - of the names above alone
    except Exception:  # whatever an expression of somebody's raises: it says no type
        return _UNKNOWN


def _parameters(node: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Every parameter by name, and its default."""
    plain = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(plain) - len(node.args.defaults)) + node.args.defaults
    yield from zip(plain, defaults, strict=True)
    yield from zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)


def _schema(
    node: ast.FunctionDef, known: dict[str, Any], file: str, about: str | None = None
) -> Schema:
    """The settings of a function; ``about`` is the docstring that tells of them."""
    about = about or ast.get_docstring(node) or ""
    fields: dict[str, Any] = {}
    for parameter, expression in _parameters(node):
        name = parameter.arg
        if _ASIDE.fullmatch(name) or name in ("input_shape", "classes"):
            continue
        default = ... if expression is None else _value(expression, known)
        if isinstance(default, tuple):
            default = list(default)
        kind = _value(parameter.annotation, known) if parameter.annotation else _kind(default)
        if kind is _UNKNOWN or default is _UNKNOWN:
            raise UserError(
                f"{file}: {node.name}: {name}: its type or default cannot be read; write int, "
                "float, bool, str, list[...], Literal[...] or Annotated[..., Field(...)]"
            )
        told = re.search(rf"^ +{name}: (.*(\n {{8,}}.*)*)", about, re.MULTILINE)
        fields[name] = (kind, Field(default, description=told[1] if told else ""))
    return create_model(node.name, __base__=Settings, **fields)


def _kind(default: Any) -> Any:
    """The type of a parameter of Keras's, which has none, by its default."""
    number = Annotated[float, Field(allow_inf_nan=False)]
    if default is ...:
        return number | list[number]
    if isinstance(default, bool | str):
        return type(default)
    return number if isinstance(default, int | float) else int | number | None
