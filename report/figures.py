"""The report's figures; each a matplotlib figure, written as SVG and PNG."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from report import claims
from report.analysis import Content, System, confusion

PUBLISHED, REPRODUCED = "#8a8f98", "#1f6feb"
TRAINING, VALIDATION = "#1f77b4", "#d9660f"
# Text becomes outlines, so that the SVG looks the same everywhere; a fixed salt keeps its ids,
# and with them the file, the same from build to build.
_STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "report",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
}


def progression(content: Content) -> Figure:
    """Published and reproduced accuracy by rung with the step gains between them."""
    systems = content.systems
    rungs = len(content.rungs)
    foreign = bool(content.selection.shown.reservation)
    with rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.8), layout="constrained")
        axes = figure.subplots()
        x = np.arange(len(systems)) + np.where(np.arange(len(systems)) < rungs, 0, 0.35)
        published = np.array([s.published for s in systems])
        measured = np.array([s.accuracy for s in systems])
        label = "published (CIFAR-10)" if foreign else "published"
        _line(axes, x, published, rungs, PUBLISHED, label, "s--", mfc="white")
        _line(axes, x, measured, rungs, REPRODUCED, "reproduced, 95 % interval", "o-")
        bounds = np.array([s.interval for s in systems]).T
        if np.isfinite(bounds).any():
            errors = np.maximum(np.abs(bounds - measured), 0)
            axes.errorbar(x, measured, errors, fmt="none", color=REPRODUCED, capsize=4)
        for i, step in enumerate(content.steps):
            above = published[i : i + 2].mean() >= np.nan_to_num(measured[i : i + 2].mean(), nan=-1)
            for gain, values, colour, side in (
                (step.published, published, PUBLISHED, 1 if above else -1),
                (step.gain, measured, REPRODUCED, -1 if above else 1),
            ):
                if not math.isnan(gain):
                    axes.annotate(
                        f"{100 * gain:+.1f}",
                        ((x[i] + x[i + 1]) / 2, values[i : i + 2].mean()),
                        (0, 11 * side),
                        textcoords="offset points",
                        ha="center",
                        va="center",
                        color=colour,
                        fontsize=9,
                        weight="bold",
                        bbox={"boxstyle": "round,pad=.15", "fc": "white", "ec": "none"},
                    )
        for position, system in zip(x, systems, strict=True):
            if not system.accuracies:
                axes.annotate(
                    system.waiting.partition(",")[0],
                    (position, 0.015),
                    xycoords=axes.get_xaxis_transform(),
                    ha="center",
                    color=PUBLISHED,
                    style="italic",
                    fontsize=9,
                    parse_math=False,
                )
        axes.set_xticks(x, [_wrapped(s) for s in systems], parse_math=False)
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(_percent)
        axes.set_ylabel("test accuracy")
        axes.margins(y=0.12)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _line(axes: Axes, x, values, rungs: int, colour: str, label: str, style: str, mfc=None) -> None:
    options = {"color": colour, "mfc": mfc or colour, "markersize": 7, "linewidth": 1.8}
    axes.plot(x[:rungs], values[:rungs], style, label=label, **options)
    axes.plot(x[rungs:], values[rungs:], style[0], **options)


def _wrapped(system: System) -> str:
    words, lines = system.title.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word[:24]}".strip()
    return "\n".join(lines[:4])


def _percent(value: float, position: int) -> str:
    return f"{100 * value:.4g} %"


def curves(system: System) -> Figure:
    """Training and validation accuracy and loss by epoch, as the study plots them.

    Several seeds are drawn as their mean and the band from the lowest to the highest.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, key in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
            for name, colour, label in (
                (key, TRAINING, "training"),
                (f"val_{key}", VALIDATION, "validation"),
            ):
                frame = pd.concat([run.history[name] for run in system.runs], axis=1).dropna(
                    how="all"
                )
                if frame.empty:
                    continue
                dot = "." if len(frame) < 40 else None
                axes.plot(frame.index, frame.mean(axis=1), color=colour, label=label, marker=dot)
                if frame.shape[1] > 1:
                    axes.fill_between(
                        frame.index, frame.min(axis=1), frame.max(axis=1), color=colour, alpha=0.18
                    )
            _events(axes, system)
            axes.set(xlabel="epoch", ylabel=key)
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            if key == "accuracy":
                axes.yaxis.set_major_formatter(_percent)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    return figure


def _events(axes: Axes, system: System) -> None:
    """Vertical lines at what the callbacks did; with several seeds, one set for each."""
    alpha = max(0.35, 1 / len(system.runs))
    for run in system.runs:
        stopped, tested = (run.metrics.get(k, 0) for k in ("stopped_epoch", "tested_epoch"))
        for epochs, style, colour, label in (
            ([e - 0.5 for e in claims.drops(run)], "--", "#6b7280", "learning rate drops"),
            ([stopped] if stopped else [], "-", "#b42318", "early stopping"),
            ([tested] if tested else [], ":", "#15803d", "weights tested"),
        ):
            for epoch in epochs:
                known = axes.get_legend_handles_labels()[1]
                axes.axvline(
                    epoch,
                    linestyle=style,
                    color=colour,
                    alpha=alpha,
                    linewidth=1.6,
                    label=None if label in known else label,
                )


def confusion_matrix(content: Content) -> Figure:
    """The pictured run's confusion matrix, each row shaded by its own share."""
    table = confusion(content.pictured)
    size = max(4.5, 0.55 * len(table) + 1.5)
    with rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(size + 0.8, size), layout="constrained")
        axes = figure.subplots()
        share = table.to_numpy() / np.maximum(table.to_numpy().sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        if len(table) <= 20:  # more would not be legible
            for (row, column), count in np.ndenumerate(table.to_numpy()):
                colour = "white" if share[row, column] > 0.5 else "#374151"
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=8)
        names = [name[:20] for name in table.index]
        ticks = range(len(table))
        axes.set_xticks(ticks, names, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(ticks, names, parse_math=False)
        axes.set(xlabel="predicted", ylabel="true")
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes ``name.svg`` and ``name.png``; neither says when, so that equal figures are equal."""
    save_svg(figure, folder / f"{name}.svg")
    with rc_context(_STYLE):
        figure.savefig(folder / f"{name}.png", dpi=150)


def save_svg(figure: Figure, path: Path, description: str | None = None) -> None:
    """Writes an SVG file, with a description in its metadata if there is one."""
    with rc_context(_STYLE):
        figure.savefig(path, metadata={"Date": None, "Description": description})
