"""The report's figures; each a matplotlib figure, written as SVG, and read off in the page.

They are drawn in the colours of ``PALETTE``, which the page turns into its own variables, so that
figures follow dark mode. Text stays text.
"""

import json
import math
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from report import claims
from report.analysis import Content, System
from report.tables import percent, points, short

PALETTE = {
    "ink": "#1b1f24",
    "soft": "#57606a",
    "line": "#dfe3e8",
    "card": "#ffffff",
    "published": "#6b7280",
    "reproduced": "#0b57d0",
    "training": "#0969da",
    "validation": "#b54708",
    "stopped": "#b42318",
    "tested": "#15803d",
    "rung1": "#7c5e00",
    "rung2": "#c2410c",
    "rung3": "#a21caf",
    "rung4": "#0e7490",
    "rung5": "#1d4ed8",
    "other": "#4b5563",
}
"""Names of the page's variables and their colours in light mode; no two the same."""
WIDTH = 5.0  # inches; 360 points, so that text is legible across a phone and in half a page
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # ids, and with them the file, are the same from build to build
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": PALETTE["soft"],
    "axes.labelcolor": PALETTE["ink"],
    "text.color": PALETTE["ink"],
    "xtick.color": PALETTE["soft"],
    "ytick.color": PALETTE["soft"],
    "axes.facecolor": PALETTE["card"],
    "figure.facecolor": PALETTE["card"],
    "axes.grid": True,
    "grid.color": PALETTE["line"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # a title may hold a $
    "figure.constrained_layout.use": True,
}
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def all_figures(content: Content) -> dict[str, Figure]:
    """Every figure by file name."""
    drawn = {"progression": progression(content), "gains": gains(content)}
    with_curves = [s for s in content.systems if any(len(run.history) for run in s.runs)]
    if with_curves:
        limits = _limits(with_curves)
        drawn["validation"] = validation(with_curves)
        drawn |= {f"curves_{s.slug}": curves(s, limits) for s in with_curves}
    return drawn


def _dots(
    rows: list[tuple[str, float, float, tuple[float, float], list[float], str]],
    form: Callable[[float], str],
    title: str,
) -> Figure:
    """Published and measured values, a row each, with intervals and seeds.

    Args:
        rows: label, published, measured, interval, by seed, and what is said if nothing was
            measured.
        form: writes a value.
        title: of the axis.
    """
    figure = Figure(figsize=(WIDTH, 0.9 + 0.5 * len(rows)))
    axes = figure.subplots()
    for y, (_, published, measured, interval, seeds, waiting) in enumerate(rows):
        axes.plot(published, y, "D", mfc="none", mec=PALETTE["published"], ms=7, mew=1.5)
        axes.plot(seeds, [y] * len(seeds), "|", color=PALETTE["reproduced"], ms=9, mew=1)
        axes.plot(interval, [y, y], "-", color=PALETTE["reproduced"], lw=2.2, alpha=0.75)
        axes.plot(measured, y, "o", color=PALETTE["reproduced"], ms=6)
        ran = not math.isnan(measured)
        for x, text, colour in (
            (6, form(published), "published"),
            (
                44,
                form(measured) if ran else waiting.partition(",")[0],
                "reproduced" if ran else "soft",
            ),
        ):
            axes.annotate(
                text, (1, y), (x, 0), axes.get_yaxis_transform(), "offset points", va="center",
                color=PALETTE[colour], annotation_clip=False, fontsize=8.5,
            )  # fmt: skip
    for x, text, colour in ((6, "published", "published"), (50, "here", "reproduced")):
        axes.annotate(
            text, (1, 1), (x, 2), "axes fraction", "offset points", color=PALETTE[colour],
            fontsize=7.5, annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.tick_params(axis="y", labelcolor=PALETTE["ink"], length=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(title)
    return figure


def _label(text: str) -> str:
    """At most two lines of a title."""
    words, lines = text.split(), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 17:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word[:17]}".strip()
    return "\n".join(lines[:2])


def progression(content: Content) -> Figure:
    """Published and reproduced accuracy by rung."""
    rows = [
        (_label(f"{short(s.name)} {s.title}"), s.published, s.accuracy, s.interval, s.accuracies,
         s.waiting)
        for s in content.systems
    ]  # fmt: skip
    with rc_context(_STYLE):
        figure = _dots(rows, percent, "test accuracy")
        figure.axes[0].xaxis.set_major_formatter(_PERCENT)
        return figure


def gains(content: Content) -> Figure:
    """What each step brought, published and measured."""
    rows = [
        (_label(s.title), s.published,
         s.gain, s.interval, s.gains, s.basis if s.after.runs and s.before.runs else "not run")
        for s in (*content.steps, *content.rivals)
    ]  # fmt: skip
    with rc_context(_STYLE):
        figure = _dots(rows, points, "gain in test accuracy, points")
        figure.axes[0].axvline(0, color=PALETTE["soft"], lw=1)
        figure.axes[0].xaxis.set_major_formatter(lambda value, _: f"{100 * value:+g}")
        return figure


def _by_epoch(system: System, key: str) -> pd.DataFrame:
    return pd.concat([run.history[key] for run in system.runs], axis=1).dropna(how="all")


def _line(axes: Axes, system: System, key: str, label: str, colour: str, style: str = "-") -> None:
    """One metric: the mean over seeds, and the band from the lowest to the highest."""
    frame = _by_epoch(system, key)
    axes.plot(frame.index, frame.mean(axis=1), style, color=colour, label=label, lw=1.5)
    if frame.shape[1] > 1:
        low, high = frame.min(axis=1), frame.max(axis=1)
        axes.fill_between(frame.index, low, high, color=colour, alpha=0.18, lw=0)


def validation(systems: list[System]) -> Figure:
    """Every system's validation accuracy, with the learning rates below."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 4.2))
        upper, lower = figure.subplots(2, sharex=True, height_ratios=[4, 1])
        for i, s in enumerate(systems, 1):
            rung = short(s.name)
            colour = PALETTE.get(f"rung{rung}", PALETTE["other"])
            style = "-" if f"rung{rung}" in PALETTE else ("--", ":", "-.")[i % 3]
            _line(upper, s, "val_accuracy", _label(f"{rung} {s.title}"), colour, style)
            _line(lower, s, "learning_rate", rung, colour, style)
        upper.yaxis.set_major_formatter(_PERCENT)
        upper.set_ylabel("validation accuracy")
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter(_PLAIN)
        lower.yaxis.set_minor_formatter(lambda *_: "")
        lower.set(xlabel="epoch", ylabel="learning rate")
        lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return figure


def _limits(systems: list[System]) -> dict[str, tuple[float, float]]:
    """Axes that hold every system's curves: epochs, accuracy and loss."""
    history = pd.concat([run.history for s in systems for run in s.runs])
    limits = {"epoch": (0.5, history.index.max() + 0.5)}
    for key in ("accuracy", "loss"):
        values = history[[key, f"val_{key}"]].to_numpy()
        values = values[np.isfinite(values) & (values > 0)]
        if len(values):
            limits[key] = float(values.min()), float(values.max())
    return limits


def curves(system: System, limits: dict[str, tuple[float, float]]) -> Figure:
    """Training and validation accuracy and loss by epoch, on axes that all systems share."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 3.9))
        upper, lower = figure.subplots(2, sharex=True)
        for axes, key in ((upper, "accuracy"), (lower, "loss")):
            _line(axes, system, key, "training", PALETTE["training"])
            _line(axes, system, f"val_{key}", "validation", PALETTE["validation"])
            _events(axes, system)
            axes.set_ylabel(key)
            if key in limits:
                low, high = limits[key]
                axes.set_ylim(low * 0.95, high * 1.05 if key == "loss" else min(high * 1.05, 1.02))
        upper.yaxis.set_major_formatter(_PERCENT)
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter(_PLAIN)
        lower.yaxis.set_minor_formatter(lambda *_: "")
        lower.set(xlabel="epoch", xlim=limits["epoch"])
        lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return figure


def _events(axes: Axes, system: System) -> None:
    """Vertical lines at what the callbacks did; with several seeds, one set for each."""
    for run in system.runs:
        stopped, tested = run.metric("stopped_epoch"), run.metric("tested_epoch")
        for epochs, style, colour, label in (
            (claims.drops(run.history["learning_rate"]), "--", "soft", "rate drops"),
            ([stopped] * (stopped > 0), "-", "stopped", "early stopping"),
            ([tested] * (tested > 0), ":", "tested", "weights tested"),
        ):
            for epoch in epochs:
                known = axes.get_legend_handles_labels()[1]
                axes.axvline(
                    epoch, linestyle=style, color=PALETTE[colour], lw=1.2,
                    alpha=max(0.5, 1 / len(system.runs)), label=label * (label not in known),
                )  # fmt: skip


def _variables(text: str) -> str:
    for variable, colour in PALETTE.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    return text


def readings(figure: Figure) -> str:
    """What the page reads off a figure that was drawn: its lines by axes, as JSON.

    A list of ``{"box": [left, top, width, height], "x": [from, to], "lines": [...]}``, the box in
    shares of the figure, each line ``{"label", "colour", "points": [[epoch, text], ...]}``.
    """
    found = []
    for axes in figure.axes:
        form = percent if axes.yaxis.get_major_formatter() is _PERCENT else "{:.4g}".format
        lines = [
            {
                "label": line.get_label().replace("\n", " "),
                "colour": _variables(line.get_color()),
                "points": [[int(x), form(y)] for x, y in zip(*line.get_data(), strict=True)],
            }
            for line in axes.lines
            if not line.get_label().startswith("_") and len(line.get_xdata()) > 2
        ]
        box = axes.get_position()
        if lines:
            place = [box.x0, 1 - box.y1, box.width, box.height]
            found.append({"box": place, "x": axes.get_xlim(), "lines": lines})
    return json.dumps(found) if found else ""


def to_svg(figure: Figure, title: str, description: str | None = None) -> str:
    """A figure as SVG; it does not say when, so that equal figures are equal.

    Args:
        figure: drawn here.
        title: for those who do not see it.
        description: goes into its metadata.
    """
    text = StringIO()
    with rc_context(_STYLE):
        figure.savefig(
            text,
            format="svg",
            metadata={"Date": None, "Title": title, "Description": description},
        )
    return text.getvalue()


def inline(svg: str, name: str) -> str:
    """An SVG as part of the page: its colours are the page's, its ids its own.

    Args:
        svg: from :func:`to_svg`.
        name: told apart from the page's other figures.
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = _variables(svg)
    # the name goes where the browser does not show it over what is read off
    return re.sub(
        r"<svg (.*?)<title>(.*?)</title>",
        r'<svg role="img" aria-label="\2" \1',
        svg,
        count=1,
        flags=re.DOTALL,
    )


def save_png(figure: Figure, path: Path) -> None:
    """Writes a picture for where SVG is not shown."""
    with rc_context(_STYLE):
        figure.savefig(path, dpi=200)
