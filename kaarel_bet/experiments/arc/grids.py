"""What ARC is made of: grids of coloured cells, pairs of them, and tasks.

The sizes and colours are those of the official format (https://github.com/fchollet/ARC-AGI).
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from backends.schema import Strict

MAX_SIDE = 30
N_COLOURS = 10
BACKGROUND = 0
"""The colour that most tasks use for empty cells (black)."""

Grid = tuple[tuple[int, ...], ...]
"""Rows of cells from top to bottom; a cell is a colour, 0..9."""

_Cell = Annotated[int, Field(ge=0, lt=N_COLOURS)]
_Row = Annotated[tuple[_Cell, ...], Field(min_length=1, max_length=MAX_SIDE)]


def _rectangular(grid: Grid) -> Grid:
    for number, row in enumerate(grid, start=1):
        if len(row) != len(grid[0]):
            raise ValueError(
                f"not a rectangle: row {number} has {len(row)} cells and row 1 has {len(grid[0])}"
            )
    return grid


_ValidGrid = Annotated[
    tuple[_Row, ...], Field(min_length=1, max_length=MAX_SIDE), AfterValidator(_rectangular)
]


class Pair(Strict):
    """An input grid and the output grid that the task's rule makes of it."""

    input: _ValidGrid
    output: _ValidGrid


Pairs = Annotated[tuple[Pair, ...], Field(min_length=1)]


class ArcTask(Strict):
    """Pairs that show a rule (`train`), and pairs whose outputs are to be found (`test`)."""

    id: Annotated[str, Field(min_length=1)]
    train: Pairs
    test: Pairs


def size(grid: Grid) -> tuple[int, int]:
    """Rows and columns."""
    return len(grid), len(grid[0])
