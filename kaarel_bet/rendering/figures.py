"""Figures as SVG."""

import io
import math
import random
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kaarel_bet import content
from kaarel_bet.content import GridFigure, HeatMap, IntervalFigure, LineFigure, Panel, PointFigure
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
    "axes.axisbelow": True,
    "grid.color": "#eeeeee",
    "legend.frameon": False,
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
    width = max(4.8, 0.7 * max(len(panel.groups) for panel in content.panels))
    figure = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axis, panel in zip(axes, content.panels, strict=False):
        _point_panel(axis, panel, content.thresholds)
    for axis in axes[len(content.panels) :]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel(content.y_label)
    if content.log:
        _log_ticks(axes[0])
    _legend(figure)
    return figure


def _point_panel(axis: Axes, panel: Panel, thresholds: Mapping[str, float]) -> None:
    rng = random.Random(0)
    for x, series in enumerate(panel.groups.values()):
        step = min(0.36, 0.84 / len(series))
        for i, (label, values) in enumerate(series.items()):
            centre = x + (i - (len(series) - 1) / 2) * step
            spread = [centre + rng.uniform(-step, step) * 0.28 for _ in values]
            colour = _COLOURS[i]
            axis.scatter(spread, values, s=14, color=colour, alpha=0.6, linewidths=0, label=label)
            middle, half = median(values), step * 0.42
            axis.plot([centre - half, centre + half], [middle, middle], color=colour, linewidth=2)
    for label, level in thresholds.items():
        axis.axhline(level, color="#555555", linewidth=1, linestyle="--", label=label)
    _name_groups(axis, panel.groups, room=44)
    axis.set_title(panel.title, fontsize=10)
    axis.grid(axis="y")


def _name_groups(axis: Axes, groups: Iterable[str], room: int) -> None:
    """Names them under the axis, aslant where there is no room for so many characters."""
    names = list(groups)
    axis.set_xticks(range(len(names)), names)
    if sum(map(len, names)) > room:
        axis.tick_params("x", rotation=25)


def _legend(figure: Figure) -> None:
    """Below the axes: what they show, each once."""
    shown: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True)) | shown
    if shown:
        columns = min(4, len(shown))
        figure.legend(shown.values(), shown, loc="outside lower center", ncols=columns)


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
    axis.set(xlabel=content.x_label, ylabel=content.y_label)
    axis.grid()
    _legend(figure)
    _log_ticks(axis)
    return figure


def _intervals(content: IntervalFigure) -> Figure:
    series = list(dict.fromkeys(name for group in content.groups.values() for name in group))
    width = max(7.2, 0.25 * len(content.groups) * len(series))
    figure = Figure(figsize=(width, 3.4), layout="constrained")
    axis = figure.subplots()
    step = 0 if content.connected else 0.8 / len(series)
    for i, name in enumerate(series):
        offset = (i - (len(series) - 1) / 2) * step
        groups = enumerate(content.groups.values())
        shown = {x + offset: group[name] for x, group in groups if name in group}
        # A mean may lie a hair outside of the interval of its resamples.
        errors = [(max(0, e.value - e.low), max(0, e.high - e.value)) for e in shown.values()]
        axis.errorbar(
            list(shown),
            [e.value for e in shown.values()],
            yerr=list(zip(*errors, strict=True)),
            fmt="o-" if content.connected else "o",
            markersize=4,
            linewidth=1.4,
            capsize=2,
            color=_COLOURS[i % len(_COLOURS)],
            label=name,
        )
    _name_groups(axis, content.groups, room=80)
    axis.set(xlabel=content.x_label, ylabel=content.y_label, ylim=(0, 1.02))
    axis.grid(axis="y")
    if len(series) > 1:
        _legend(figure)
    return figure


def _heat_map(content: HeatMap) -> Figure:
    size = (4 + 0.62 * len(content.columns), 2.6 + 0.34 * len(content.rows))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(content.values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(content.values):
        for x, value in enumerate(row):
            text = "" if math.isnan(value) else f"{100 * value:.0f}"
            colour = "black" if value > 0.5 else "white"
            axis.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)
    columns = range(len(content.columns))
    axis.set_xticks(columns, content.columns, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(content.rows)), content.rows, fontsize=8)
    axis.set(xlabel=content.x_label, ylabel=content.y_label)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, label="accuracy")
    return figure


def _log_ticks(axis: Axes) -> None:
    """Names whole powers of ten on an axis that holds logarithms; what is between where they are few."""
    low, high = axis.get_ylim()
    step = max(1, math.ceil((high - low) / 8))
    powers = range(math.floor(low / step) * step, math.ceil(high) + 1, step)
    digits = (1,) if sum(low <= power <= high for power in powers) >= 3 else (1, 2, 5)
    names = {p + math.log10(d): f"{d}e{p}" if p else f"{d}" for p in powers for d in digits}
    shown = {level: name for level, name in names.items() if low <= level <= high}
    axis.set_yticks(list(shown), list(shown.values()))
