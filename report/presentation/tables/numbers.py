"""Formats numbers for readers; rounding never contradicts a verdict."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from report.analysis import Bound, Run, System
from resnet.study import rung_number, short

NONE = "-"


def digits(values: Iterable[float], limits: Iterable[float | None], least: int = 1) -> int:
    """Returns the fewest decimals at which each rounded value stays on its side of each limit."""
    pairs = [(v, x) for v in values if math.isfinite(v) for x in limits if x is not None]
    true = [np.sign(round(value - end, 9)) for value, end in pairs]
    for n in range(least, 8):
        if [np.sign(round(round(value, n) - end, 9)) for value, end in pairs] == true:
            break
    return n


def percent(value: float, decimals: int = 1) -> str:
    """Writes 0.7231 as ``72.3 %``."""
    return NONE if math.isnan(value) else f"{100 * value:.{decimals}f} %"


def points(value: float, decimals: int = 1) -> str:
    """Writes a difference of accuracies in points: 0.0051 as ``+0.5``."""
    return NONE if math.isnan(value) else f"{100 * value:+z.{decimals}f}"


def gains_form(systems: Iterable[System]) -> Callable[[float], str]:
    """Returns a function that writes gains in points, with as many decimals as the accuracies."""
    return partial(points, decimals=max((s.decimals for s in systems), default=1))


def span(interval: tuple[float, float], form: Callable[[float], str] = percent) -> str:
    """Writes ``71.4 to 73.2 %``, or a dash if the interval is unknown or has equal ends."""
    low, high = interval
    if math.isnan(low) or low == high:
        return NONE
    start, end = form(low), form(high)
    if start.startswith("epoch "):
        return f"{start} to {end.removeprefix('epoch ')}"
    return f"{start.partition(' ')[0]} to {end}"


def p_value(p: float) -> str:
    """Writes a p value with two significant digits, or as ``< 0.0001``."""
    return NONE if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def measured(value: float, unit: str, decimals: int = 1) -> str:
    """Writes a quantity with its unit; epoch 0 and infinity become "never"."""
    if math.isnan(value):
        return NONE
    if math.isinf(value) or (unit == "epoch" and value == 0):
        return "never"
    if unit == "accuracy":
        return percent(value, decimals)
    if unit == "points":
        return f"{points(value, decimals)} points"
    if unit == "number":
        return f"{value:,.6g}"
    if unit == "images":
        return f"{value:.{decimals}f} images"
    return f"{value:.{decimals}f}" if unit == "ratio" else f"epoch {round(value, decimals):g}"


def _scale(unit: str) -> int:
    return 100 if unit in ("accuracy", "points") else 1


def bound(limits: Bound, unit: str) -> str:
    """Writes a claim's bound, such as ``at least 80.0 %`` or ``83.0 to 87.0 %``."""

    def end(value: float) -> str:
        return measured(value, unit, digits([_scale(unit) * value], [_scale(unit) * value]))

    if unit == "epoch" and limits.max == 0:
        return "never"
    low, high = limits.ends
    if math.isinf(low):
        return f"at most {end(high)}"
    return f"at least {end(low)}" if math.isinf(high) else span((low, high), end)


def to_limits(
    value: float, interval: tuple[float, float], limits: Bound, unit: str, least: int = 1
) -> list[str]:
    """Writes a value and its interval; rounding moves neither across a limit."""
    scale = _scale(unit)
    ends = [None if end is None else scale * end for end in (limits.min, limits.max)]
    n = digits([scale * x for x in (value, *interval)], ends, 2 if unit == "ratio" else least)
    return [measured(value, unit, n), span(interval, lambda x: measured(x, unit, n))]


def number(form: str = ",.0f", unit: str = "") -> Callable[[float | None], str]:
    """Returns a function that formats numbers and writes NaN and None as a dash."""

    def text(value: float | None) -> str:
        return NONE if value is None or math.isnan(value) else format(value, form) + unit

    return text


def least_to_most(values: Sequence[float]) -> str:
    """Writes a range as ``1 to 5``, or as ``3`` if all values are equal."""
    if not values:
        return NONE
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def deviation(value: float) -> str:
    """Writes a deviation in points: 0.0021 as ``0.21``."""
    return number(".2f")(100 * value)


def rung(name: str) -> str:
    """Writes a rung's name as ``rung 3``; a baseline keeps its name."""
    return name if rung_number(name) is None else f"rung {short(name)}"


def seed_list(seeds: Iterable[int]) -> str:
    """Writes seeds in the form that the option ``--seeds`` takes: ``0-4`` or ``0,2,5``."""
    seeds = sorted(seeds)
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def seeds(runs: Sequence[Run]) -> str:
    """Writes the runs' seeds, as in ``seed 0`` or ``seeds 1-4``."""
    return f"seed{'s' * (len(runs) > 1)} {seed_list(run.seed for run in runs)}"


def setting(params: dict, key: str) -> str:
    """Writes the value of a setting, or all values of a block of settings, in one line."""
    if (value := params.get(key)) is not None:
        return f"{value:g}" if isinstance(value, float) else str(value)
    block = [
        f"{k.removeprefix(f'{key}.')} {v}" for k, v in params.items() if k.startswith(f"{key}.")
    ]
    return ", ".join(block) or ("none" if key in params else NONE)
