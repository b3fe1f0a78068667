"""Draws the report's figures with matplotlib and writes them as SVG.

Figures are drawn in the colours of the page's light mode. The page replaces these colours with CSS
variables, so that the figures adapt to dark mode.
"""

import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from report.analysis import Ablation, Content, System, drops, plain
from report.presentation.tables.numbers import NONE, percent, points

TEMPLATES = Path(__file__).parent / "templates"
STYLE = TEMPLATES / "report.mplstyle"
PALETTE: dict[str, str] = dict(
    re.findall(
        r"--(\w+): (#\w{6})", (TEMPLATES / "report.css").read_text(encoding="utf-8").split("}")[0]
    )
)
"""The page's CSS variables and their colours in light mode."""
WIDTH = 5.0  # inches; text stays legible on a phone and at half the page's width
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


def all_figures(content: Content) -> dict[str, Figure]:
    """Maps file names, without suffix, to figures."""
    with rc_context(fname=STYLE):
        drawn = {"progression": _progression(content)}
        if content.steps or content.rivals:
            drawn["gains"] = _gains(content)
        ablations = [a for a in content.ablations if a.seeds]
        drawn |= {f"factors_{a.step.after.slug}": _factors(a) for a in ablations}
        systems = [s for s in content.systems if any(len(run.history) for run in s.runs)]
        if systems:
            drawn["validation"] = _validation(systems)
            curves = {f"curves_{s.slug}": _curves(s) for s in systems}
            for panel in zip(*(figure.axes for figure in curves.values()), strict=True):
                _share_limits(panel)
            drawn |= curves
    return drawn


def _dots(rows: list[tuple], form: Callable[[float], str], title: str) -> Figure:
    """Draws rows of (label, published, measured, interval, values by seed, note)."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.5 * len(rows)))
    axes = figure.subplots()
    blue, grey = PALETTE["reproduced"], PALETTE["published"]
    columns = [(6, grey), (50, blue)]
    if all(math.isnan(row[1]) for row in rows):
        columns = [(6, blue)]  # no published values

    def write(y: float, size: float, *texts: str) -> None:
        for (x, colour), text in zip(columns, texts[-len(columns) :], strict=True):
            axes.annotate(text, (1, y), (x, 0), axes.get_yaxis_transform(), "offset points",
                          va="center", color=colour, annotation_clip=False, size=size)  # fmt: skip

    for y, (_, published, measured, interval, seeds, note) in enumerate(rows):
        axes.plot(published, y, "D", mfc="none", mec=grey, ms=7, mew=1.5)
        axes.plot(seeds, [y] * len(seeds), "|", color=blue, ms=9, mew=1)
        axes.plot(interval, [y, y], "-", color=blue, lw=2.2, alpha=0.75)
        axes.plot(measured, y, "o", color=blue, ms=6)
        write(y, 8.5, form(published), note if math.isnan(measured) else form(measured))
    write(-0.65, 7.5, "published", "here")
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.tick_params(axis="y", labelcolor=PALETTE["ink"], length=0)
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=title)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _label(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 18, break_on_hyphens=False)[:3])


def _progression(content: Content) -> Figure:
    rows = [
        (_label(s.heading), s.published, s.accuracy, s.interval, s.accuracies, s.waiting)
        for s in content.systems
    ]
    decimals = max(s.decimals for s in content.systems)
    figure = _dots(rows, partial(percent, decimals=decimals), "test accuracy")
    figure.axes[0].set_xlim(right=min(figure.axes[0].get_xlim()[1], 1.002))
    figure.axes[0].xaxis.set_major_formatter(_PERCENT)
    return figure


def _differences(rows: list[tuple], decimals: int = 1) -> Figure:
    figure = _dots(rows, partial(points, decimals=decimals), "gain in test accuracy, points")
    figure.axes[0].axvline(0, color=PALETTE["soft"], lw=1)
    figure.axes[0].xaxis.set_major_formatter(lambda value, _: f"{100 * value:+g}" if value else "0")
    return figure


def _gains(content: Content) -> Figure:
    rows = []
    for step in (*content.steps, *content.rivals):
        waiting = next((s.waiting for s in (step.before, step.after) if not s.runs), NONE)
        measured = (step.gain, step.interval, step.gains)
        rows.append((_label(step.title), step.published, *measured, waiting))
    return _differences(rows, max(system.decimals for system in content.systems))


def _factors(ablation: Ablation) -> Figure:
    whole, published = ablation.whole, ablation.step.published
    # if the study credits several changes, it does not publish the gain of each
    alone = sum(factor.credited for factor in ablation.factors) == 1
    rows: list[tuple] = []
    for f in ablation.factors:
        label = _label("◆ " * f.credited + plain(f.key))
        credited = published if f.credited and alone else math.nan
        rows.append((label, credited, f.value, f.interval, f.shapley, ""))
    rows.append(("whole step", published, whole.gain, whole.interval, whole.gains, ""))
    figure = _differences(rows)
    for y, factor in enumerate(ablation.factors):
        for above, marker, colour, label, step in (
            (-0.22, "<", "validation", "leave-one-out", factor.leave_one_out),
            (0.22, ">", "tested", "add-one-in", factor.add_one_in),
        ):
            figure.axes[0].plot(step.gain, y + above, marker, color=PALETTE[colour], ms=5,
                                label=label * (y == 0))  # fmt: skip
    return _legend(figure)


def _panels(height: float, ratios: list[int], labels: list[str]) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=ratios)
    upper.yaxis.set_major_formatter(_PERCENT)
    upper.set_ylabel(labels[0])
    lower.set(xlabel="epoch", ylabel=labels[1], yscale="log")
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    lower.yaxis.set_minor_formatter(lambda *_: "")
    lower.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure, upper, lower


def _legend(figure: Figure) -> Figure:
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
    return figure


def _line(axes: Axes, system: System, key: str, label: str, colour: str, style: str = "-") -> None:
    """Draws a metric's mean (line) and range (band) over the seeds that reach each epoch."""
    histories = [run.history[key] for run in system.runs if len(run.history)]
    frame = pd.concat(histories, axis=1).dropna(how="all")
    axes.plot(frame.index, frame.mean(axis=1), style, color=colour, label=label)
    if frame.shape[1] > 1:
        low, high = frame.min(axis=1), frame.max(axis=1)
        axes.fill_between(frame.index, low, high, color=colour, alpha=0.18, lw=0)


def _validation(systems: list[System]) -> Figure:
    figure, upper, lower = _panels(4.2, [4, 1], ["validation accuracy", "learning rate"])
    for i, s in enumerate(systems, 1):
        colour = PALETTE.get(f"rung{s.short}", PALETTE["other"])
        style = "-" if f"rung{s.short}" in PALETTE else ("--", ":", "-.")[i % 3]
        _line(upper, s, "val_accuracy", _label(s.heading), colour, style)
        _line(lower, s, "learning_rate", s.short, colour, style)
    lower.set_xlim(left=0.5)  # the first epoch is 1
    for i, line in enumerate((*upper.lines, *lower.lines)):
        line.set_zorder(3 - i / 1000)  # where curves coincide, the earlier rung's curve is on top
    return _legend(figure)


def _share_limits(panel: Sequence[Axes]) -> None:
    """Gives the same limits to axes that show the same metric of different rungs."""
    right = max(axes.get_xlim()[1] for axes in panel)
    bottoms, tops = zip(*(axes.get_ylim() for axes in panel), strict=True)
    for axes in panel:
        axes.set(xlim=(0.5, right), ylim=(min(bottoms), max(tops)))


def _curves(system: System) -> Figure:
    figure, upper, lower = _panels(3.9, [1, 1], ["accuracy", "loss"])
    for axes, key in ((upper, "accuracy"), (lower, "loss")):
        _line(axes, system, key, "training", PALETTE["training"])
        _line(axes, system, f"val_{key}", "validation", PALETTE["validation"])
        _events(axes, system)
    return _legend(figure)


def _events(axes: Axes, system: System) -> None:
    """Draws vertical lines at each run's learning-rate drops, early stop and tested epoch."""
    alpha = max(0.5, 1 / len(system.runs))
    for run in system.runs:
        stopped, tested = run.metric("stopped_epoch"), run.metric("tested_epoch")
        for epochs, style, colour, label in (
            (drops(run.history["learning_rate"]), "--", "soft", "rate drops"),
            ([stopped] * (stopped > 0), "-", "stopped", "early stopping"),
            ([tested] * (tested > 0), ":", "tested", "weights tested"),
        ):
            for epoch in epochs:
                name = label * (label not in axes.get_legend_handles_labels()[1])
                axes.axvline(epoch, ls=style, c=PALETTE[colour], lw=1.2, alpha=alpha, label=name)


def to_svg(figure: Figure, name: str) -> str:
    """Returns a figure as SVG, without a date, so that equal figures give equal files."""
    text = StringIO()
    with rc_context(fname=STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # browsers have the glyphs
        metadata = {"Date": None, "Title": name.replace("_", " ")}
        figure.savefig(text, format="svg", metadata=metadata)
    return text.getvalue()


def inline(svg: str, name: str) -> str:
    """Prepares an SVG for the page: colours become CSS variables, and ids begin with ``name``."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    for variable, colour in PALETTE.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    return svg.replace("<svg ", '<svg role="img" ')
