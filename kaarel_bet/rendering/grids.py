"""Coloured grids as a figure: each under its label, rows of them under their titles."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from kaarel_bet.content import Grid, GridFigure, GridRow

# The colours of arcprize.org's own viewer, by the cell's number.
COLOURS = (
    "#000000",
    "#0074D9",
    "#FF4136",
    "#2ECC40",
    "#FFDC00",
    "#AAAAAA",
    "#F012BE",
    "#FF851B",
    "#7FDBFF",
    "#870C25",
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


@dataclass(frozen=True)
class _Placed:
    """A grid with its label's upper left corner."""

    label: str
    grid: Grid | None
    shape: tuple[int, int]
    x: float
    y: float


def draw_grids(content: GridFigure) -> Figure:
    """The figure; grids of a row have cells of the same size, and go on below where a line is full."""
    height = 0.0
    titles: list[tuple[str, float]] = []
    placed: list[tuple[_Placed, float]] = []
    for row in content.rows:
        titles.append((row.title, height))
        cell = _cell_size(row)
        grids, height = _place(row, cell, height + _TITLE_HEIGHT)
        placed += [(grid, cell) for grid in grids]
    figure = Figure(figsize=(_WIDTH, max(height, _GAP)))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(max(height, _GAP), 0))
    axis.set_axis_off()
    for title, y in titles:
        axis.text(0, y, title, va="top", fontsize=10, fontweight="bold", parse_math=False)
    for grid, cell in placed:
        _draw(axis, grid, cell)
    return figure


def _shapes(row: GridRow) -> list[tuple[int, int]]:
    """Rows and columns of each grid; what is not readable gets the largest of the others'."""
    known = [(len(grid), len(grid[0])) for grid in row.grids.values() if grid]
    largest = max(known, key=lambda shape: shape[0] * shape[1], default=_UNREADABLE)
    return [(len(grid), len(grid[0])) if grid else largest for grid in row.grids.values()]


def _cell_size(row: GridRow) -> float:
    """As large as lets the row's grids stand on one line, within what can be read."""
    columns = sum(n_columns for _, n_columns in _shapes(row))
    room = _WIDTH - _GAP * (len(row.grids) - 1)
    return min(_LARGEST_CELL, max(_SMALLEST_CELL, room / max(1, columns)))


def _place(row: GridRow, cell: float, top: float) -> tuple[list[_Placed], float]:
    """The row's grids on lines from `top` downwards, and where they end."""
    placed: list[_Placed] = []
    x, y, line_height = 0.0, top, 0.0
    for (label, grid), shape in zip(row.grids.items(), _shapes(row), strict=True):
        width = max(shape[1] * cell, _LETTER * len(label))
        if x > 0 and x + width > _WIDTH + 1e-9:
            x, y, line_height = 0.0, y + line_height, 0.0
        placed.append(_Placed(label, grid, shape, x, y))
        x += width + _GAP
        line_height = max(line_height, _LABEL_HEIGHT + shape[0] * cell + _GAP)
    return placed, y + line_height


def _draw(axis: Axes, placed: _Placed, cell: float) -> None:
    axis.text(placed.x, placed.y, placed.label, va="top", fontsize=9, parse_math=False)
    x, y = placed.x, placed.y + _LABEL_HEIGHT
    n_rows, n_columns = placed.shape
    if not placed.grid:
        frame = _polylines([_outline(x, y, n_columns * cell, n_rows * cell)])
        axis.add_patch(
            PathPatch(frame, fill=False, edgecolor=_LINES, linestyle="--", clip_on=False)
        )
        return
    for colour in sorted({value for row in placed.grid for value in row}):
        _fill(axis, placed.grid, colour, (x, y), cell)
        if colour and cell >= _SMALLEST_NUMBERED_CELL:
            _number(axis, placed.grid, colour, (x, y), cell)
    across = [[(x, y + i * cell), (x + n_columns * cell, y + i * cell)] for i in range(n_rows + 1)]
    down = [[(x + i * cell, y), (x + i * cell, y + n_rows * cell)] for i in range(n_columns + 1)]
    lines = _polylines(across + down)
    axis.add_patch(PathPatch(lines, fill=False, edgecolor=_LINES, linewidth=0.5, clip_on=False))


def _fill(axis: Axes, grid: Grid, colour: int, corner: tuple[float, float], cell: float) -> None:
    """All cells of a colour as one shape: each stretch of a row as a rectangle."""
    x, y = corner
    outlines = []
    for i, row in enumerate(grid):
        for value, stretch in itertools.groupby(range(len(row)), key=row.__getitem__):
            places = list(stretch)
            if value == colour:
                left = x + places[0] * cell
                outlines.append(_outline(left, y + i * cell, len(places) * cell, cell))
    shape = PathPatch(_polylines(outlines), facecolor=COLOURS[colour], linewidth=0, clip_on=False)
    axis.add_patch(shape)


def _number(axis: Axes, grid: Grid, colour: int, corner: tuple[float, float], cell: float) -> None:
    """Writes a colour's number into its cells, so that not the colour alone tells them apart."""
    x, y = corner
    cells = [(j, i) for i, row in enumerate(grid) for j, value in enumerate(row) if value == colour]
    axis.plot(
        [x + (j + 0.5) * cell for j, _ in cells],
        [y + (i + 0.5) * cell for _, i in cells],
        linestyle="none",
        marker=f"${colour}$",  # drawn once and referred to, where texts would make large files
        markersize=cell * 72 * 0.42,
        markeredgewidth=0,
        color="white" if colour in _WITH_WHITE_NUMBERS else "black",
        alpha=0.55,
        clip_on=False,
    )


def _outline(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]


def _polylines(lines: Sequence[Sequence[tuple[float, float]]]) -> Path:
    codes = [Path.LINETO if i else Path.MOVETO for line in lines for i in range(len(line))]
    return Path([point for line in lines for point in line], codes)
