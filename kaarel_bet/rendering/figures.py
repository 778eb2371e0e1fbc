"""Figures as SVG."""

import io
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kaarel_bet import content
from kaarel_bet.content import (
    GridFigure,
    HeatMap,
    IntervalFigure,
    LineFigure,
    Panel,
    PointFigure,
)
from kaarel_bet.rendering.grids import draw_grids

# Okabe & Ito's colours, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINE_STYLES = ("-", "--", ":")
"""For more lines than there are colours."""
_MOST_MARKED = 50
"""So many points of a line are marked; a single one would not be seen otherwise."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kaarel-bet",  # the same figure is the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(figure: content.Figure) -> str:
    """The figure as SVG text."""
    with mpl.rc_context(_STYLE):
        match figure:
            case PointFigure():
                drawn = _points(figure)
            case LineFigure():
                drawn = _lines(figure)
            case IntervalFigure():
                drawn = _intervals(figure)
            case HeatMap():
                drawn = _heat_map(figure)
            case GridFigure():
                drawn = draw_grids(figure)
        out = io.StringIO()
        drawn.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = out.getvalue()
    return text[text.index("<svg") :]


def _points(content: PointFigure) -> Figure:
    columns = min(2, len(content.panels))
    rows = math.ceil(len(content.panels) / columns)
    figure = Figure(figsize=(4.8 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axis, panel in zip(axes, content.panels, strict=False):
        _point_panel(axis, panel, content.thresholds)
    for axis in axes[::columns]:
        axis.set_ylabel(content.y_label)
    _log_ticks(axes[0])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _point_panel(axis: Axes, panel: Panel, thresholds: Mapping[str, float]) -> None:
    rng = random.Random(0)
    for x, series in enumerate(panel.groups.values()):
        for i, (label, values) in enumerate(series.items()):
            centre = x + (i - (len(series) - 1) / 2) * 0.36
            spread = [centre + rng.uniform(-0.1, 0.1) for _ in values]
            colour = _COLOURS[i]
            shown = label if x == 0 else None  # once in the legend
            axis.scatter(spread, values, s=14, color=colour, alpha=0.6, linewidths=0, label=shown)
            middle = _median(values)
            axis.plot([centre - 0.15, centre + 0.15], [middle, middle], color=colour, linewidth=2)
    for label, level in thresholds.items():
        axis.axhline(level, color="#555555", linewidth=1, linestyle="--", label=label)
    axis.set_xticks(range(len(panel.groups)), list(panel.groups))
    axis.set_title(panel.title, fontsize=10)
    axis.grid(axis="y", color="#eeeeee")
    axis.set_axisbelow(True)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _lines(content: LineFigure) -> Figure:
    legend_rows = math.ceil(len(content.lines) / 4)
    figure = Figure(figsize=(7.2, 3.2 + 0.22 * legend_rows), layout="constrained")
    axis = figure.subplots()
    for i, (label, points) in enumerate(content.lines.items()):
        if not points:
            continue
        x, y = zip(*points, strict=True)
        axis.plot(
            x,
            y,
            label=label,
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_LINE_STYLES[i // len(_COLOURS) % len(_LINE_STYLES)],
            marker="o" if len(points) <= _MOST_MARKED else None,
            markersize=3,
            linewidth=1.4,
        )
    axis.set_xlabel(content.x_label)
    axis.set_ylabel(content.y_label)
    axis.grid(color="#eeeeee")
    if any(content.lines.values()):
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
    _log_ticks(axis)
    return figure


def _intervals(content: IntervalFigure) -> Figure:
    series = list(dict.fromkeys(name for group in content.groups.values() for name in group))
    width = max(7.2, 0.25 * len(content.groups) * len(series))
    figure = Figure(figsize=(width, 3.4), layout="constrained")
    axis = figure.subplots()
    step = 0 if content.connected else 0.8 / len(series)
    for i, name in enumerate(series):
        shown = [
            (x, group[name]) for x, group in enumerate(content.groups.values()) if name in group
        ]
        places = [x + (i - (len(series) - 1) / 2) * step for x, _ in shown]
        found = [estimate for _, estimate in shown]
        axis.errorbar(
            places,
            [e.value for e in found],
            # A mean may lie a hair outside of the interval of its resamples.
            yerr=[
                [max(0, e.value - e.low) for e in found],
                [max(0, e.high - e.value) for e in found],
            ],
            fmt="o-" if content.connected else "o",
            markersize=4,
            linewidth=1.4,
            capsize=2,
            color=_COLOURS[i % len(_COLOURS)],
            label=name,
        )
    axis.set_xticks(range(len(content.groups)), list(content.groups))
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(content.x_label)
    axis.set_ylabel(content.y_label)
    axis.grid(axis="y", color="#eeeeee")
    axis.set_axisbelow(True)
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=min(4, len(series)), frameon=False)
    return figure


def _heat_map(content: HeatMap) -> Figure:
    size = (4 + 0.62 * len(content.columns), 2.6 + 0.34 * len(content.rows))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(content.values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(content.values):
        for x, value in enumerate(row):
            colour = "black" if value > 0.5 else "white"
            axis.text(
                x, y, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=8
            )
    axis.set_xticks(
        range(len(content.columns)), content.columns, rotation=40, ha="right", fontsize=8
    )
    axis.set_yticks(range(len(content.rows)), content.rows, fontsize=8)
    axis.set_xlabel(content.x_label)
    axis.set_ylabel(content.y_label)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, label="accuracy")
    return figure


def _log_ticks(axis: Axes) -> None:
    """Names whole powers of ten on an axis that holds logarithms; what is between where they are few."""
    low, high = axis.get_ylim()
    step = max(1, math.ceil((high - low) / 8))
    ticks = range(math.floor(low / step) * step, math.ceil(high) + 1, step)
    shown = [tick for tick in ticks if low <= tick <= high]
    named = {float(tick): f"1e{tick}" if tick else "1" for tick in shown}
    if len(shown) < 3:
        for power in range(math.floor(low), math.ceil(high) + 1):
            for digit in (2, 5):
                if low <= power + math.log10(digit) <= high:
                    name = f"{digit}e{power}" if power else f"{digit}"
                    named[power + math.log10(digit)] = name
    axis.set_yticks(list(named), list(named.values()))
