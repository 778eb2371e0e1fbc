"""Coloured grids as a figure: each under its label, rows of them under their titles."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Transform

from kaarel_bet.content import Grid, GridFigure, GridRow

# The colours of arcprize.org's own viewer, by the cell's number.
COLOURS = (
    *("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00"),
    *("#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25"),
)
_WITH_WHITE_NUMBERS = (1, 6, 9)
_LINES = "#555555"

# All lengths are in inches.
_WIDTH = 9.0
_SMALLEST_CELL, _LARGEST_CELL = 0.09, 0.28
_SMALLEST_NUMBERED_CELL = 0.18
_GAP = 0.3
_TITLE_HEIGHT, _LABEL_HEIGHT = 0.32, 0.22
_LETTER = 0.08
_UNREADABLE = (3, 3)
"""How many rows and columns the frame of nothing has where no other grid of the row gives a size."""


def draw_grids(content: GridFigure) -> Figure:
    """The figure; grids of a row have cells of the same size, and go on below where a line is full."""
    figure = Figure()
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    height = 0.0
    for row in content.rows:
        axis.text(0, height, row.title, va="top", fontsize=10, fontweight="bold", parse_math=False)
        height = _draw_row(axis, row, height + _TITLE_HEIGHT)
    height = max(height, _GAP)
    figure.set_size_inches(_WIDTH, height)
    axis.set(xlim=(0, _WIDTH), ylim=(height, 0))
    return figure


def _draw_row(axis: Axes, row: GridRow, top: float) -> float:
    """Draws the row's grids on lines from `top` downwards; returns where they end."""
    known = [(len(grid), len(grid[0])) for grid in row.grids.values() if grid]
    # What is not readable gets the largest of the others' shapes.
    largest = max(known, key=lambda shape: shape[0] * shape[1], default=_UNREADABLE)
    shapes = [(len(grid), len(grid[0])) if grid else largest for grid in row.grids.values()]
    # As large as lets the row's grids stand on one line, within what can be read.
    room = _WIDTH - _GAP * (len(shapes) - 1)
    columns = sum(n_columns for _, n_columns in shapes)
    cell = min(_LARGEST_CELL, max(_SMALLEST_CELL, room / max(1, columns)))
    x, y, line_height = 0.0, top, 0.0
    for (label, grid), (n_rows, n_columns) in zip(row.grids.items(), shapes, strict=True):
        width = max(n_columns * cell, _LETTER * len(label))
        if x > 0 and x + width > _WIDTH + 1e-9:
            x, y, line_height = 0.0, y + line_height, 0.0
        axis.text(x, y, label, va="top", fontsize=9, parse_math=False)
        cells = Affine2D().scale(cell).translate(x, y + _LABEL_HEIGHT) + axis.transData
        if grid:
            _draw_grid(axis, grid, cell, cells)
        else:
            frame = [_outline(0, 0, n_columns, n_rows)]
            _add(axis, frame, cells, fill=False, edgecolor=_LINES, linestyle="--")
        x += width + _GAP
        line_height = max(line_height, _LABEL_HEIGHT + n_rows * cell + _GAP)
    return y + line_height


def _draw_grid(axis: Axes, grid: Grid, cell: float, cells: Transform) -> None:
    """Draws a grid; `cells` takes (column, row) to where it is."""
    for colour in sorted({value for row in grid for value in row}):
        _add(axis, _stretches(grid, colour), cells, facecolor=COLOURS[colour], linewidth=0)
        if colour and cell >= _SMALLEST_NUMBERED_CELL:
            _number(axis, grid, colour, cell, cells)
    n_rows, n_columns = len(grid), len(grid[0])
    across = [[(0, i), (n_columns, i)] for i in range(n_rows + 1)]
    down = [[(i, 0), (i, n_rows)] for i in range(n_columns + 1)]
    _add(axis, across + down, cells, fill=False, edgecolor=_LINES, linewidth=0.5)


_Line = Sequence[tuple[float, float]]


def _stretches(grid: Grid, colour: int) -> Iterable[_Line]:
    """Outlines of the stretches of rows that have a colour."""
    for i, row in enumerate(grid):
        for value, stretch in itertools.groupby(range(len(row)), key=row.__getitem__):
            places = list(stretch)
            if value == colour:
                yield _outline(places[0], i, len(places), 1)


def _number(axis: Axes, grid: Grid, colour: int, cell: float, cells: Transform) -> None:
    """Writes a colour's number into its cells, so that not the colour alone tells them apart."""
    places = [
        (j, i) for i, row in enumerate(grid) for j, value in enumerate(row) if value == colour
    ]
    axis.plot(
        [j + 0.5 for j, _ in places],
        [i + 0.5 for _, i in places],
        transform=cells,
        linestyle="none",
        marker=f"${colour}$",  # drawn once and referred to, where texts would make large files
        markersize=cell * 72 * 0.42,
        markeredgewidth=0,
        color="white" if colour in _WITH_WHITE_NUMBERS else "black",
        alpha=0.55,
        clip_on=False,
    )


def _outline(x: float, y: float, width: float, height: float) -> _Line:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]


def _add(axis: Axes, lines: Iterable[_Line], cells: Transform, **style: Any) -> None:  # noqa: ANN401
    """Adds lines as one shape, which makes smaller files than many."""
    path = Path.make_compound_path(*map(Path, lines))
    axis.add_patch(PathPatch(path, transform=cells, clip_on=False, **style))
