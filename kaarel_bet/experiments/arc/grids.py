"""What ARC is made of: grids of coloured cells, pairs of them, tasks; and grids as text and back.

Sizes and colours are those of the official format (https://github.com/fchollet/ARC-AGI). As text, grids are
fenced rows of digits, as arc24 writes them (https://github.com/ironbar/arc24):

rows            shape                     numbered
```grid         ```grid shape: 2x3        ```grid
012             012                       1 012
345             345                       2 345
```             ```                       ```
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from backends.schema import Strict
from kaarel_bet.content import Grid

SetName = Literal["train", "other", "test"]
Encoding = Literal["rows", "shape", "numbered"]

SETS: tuple[SetName, ...] = ("train", "other", "test")
MAX_SIDE = 30
N_COLOURS = 10
BACKGROUND = 0
"""The colour that most tasks use for empty cells (black)."""

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
    """An input grid and the output grid that the task's rule makes of it; further keys are passed over."""

    model_config = ConfigDict(extra="ignore")

    input: _ValidGrid
    output: _ValidGrid


Pairs = Annotated[tuple[Pair, ...], Field(min_length=1)]


class ArcTask(Strict):
    """Pairs that show a rule (`train`), and pairs whose outputs are to be found (`test`)."""

    id: Annotated[str, Field(min_length=1)]
    train: Pairs
    test: Pairs

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All of them."""
        return (*self.train, *self.test)


def size(grid: Grid) -> tuple[int, int]:
    """Rows and columns."""
    return len(grid), len(grid[0])


class ArcItem(Strict):
    """One test input of a task of a set (`part`); `index` says which."""

    id: str
    part: SetName
    task: ArcTask
    index: int

    @property
    def expected(self) -> Grid:
        """The right answer."""
        return self.task.test[self.index].output


def arc_items(tasks: Sequence[ArcTask], part: SetName) -> list[ArcItem]:
    """One item for every test input."""
    return [
        ArcItem(id=f"{part}/{task.id}/{index}", part=part, task=task, index=index)
        for task in tasks
        for index in range(len(task.test))
    ]


# --- as text ----------------------------------------------------------------------------------------

N_SAMPLED = N_COLOURS**2 * (MAX_SIDE - 1)
"""Cells that `cells_without_token` looks at."""

_FENCE = "```"
_NUMBERED = re.compile(r"[0-9]+ +(.*)")
_DIGITS = re.compile(r"[0-9]+")


class Unreadable(StrEnum):
    """Why there is no grid in a text."""

    NO_FENCE = "no fenced block"
    UNFINISHED = "the fenced block does not end"
    EMPTY = "the fenced block has no rows"
    NOT_NUMBERED = "a row without its number"
    NOT_DIGITS = "a row with something other than digits"
    RAGGED = "rows of different lengths"
    TOO_LARGE = "more than 30 rows or columns"


def encode(grid: Grid, encoding: Encoding) -> str:
    """The grid as a fenced block, no newline at its end."""
    rows, columns = size(grid)
    header = f"grid shape: {rows}x{columns}" if encoding == "shape" else "grid"
    lines = ["".join(map(str, row)) for row in grid]
    if encoding == "numbered":
        lines = [f"{number} {line}" for number, line in enumerate(lines, start=1)]
    return "\n".join([_FENCE + header, *lines, _FENCE])


def decode(text: str, encoding: Encoding) -> Grid | Unreadable:
    """The grid in the first fenced block of the text, or why there is none; never raises.

    Only the rows count: a shape or a row number that contradicts them is no reason to refuse them.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    fences = [place for place, line in enumerate(lines) if line.lstrip().startswith(_FENCE)]
    if not fences:
        return Unreadable.NO_FENCE
    if len(fences) == 1:
        return Unreadable.UNFINISHED
    rows = [line.strip() for line in lines[fences[0] + 1 : fences[1]]]
    if encoding == "numbered":
        numbered = [_NUMBERED.fullmatch(row) for row in rows]
        found = [match[1] for match in numbered if match]
        if len(found) < len(rows):
            return Unreadable.NOT_NUMBERED
        rows = found
    return _grid(rows)


def cells_without_token(tokenize: Callable[[str], tuple[int, ...]], encoding: Encoding) -> int:
    """How many of `N_SAMPLED` cells are not one token of their own, in rows with every pair of digits.

    0 where a tokenizer gives every cell its token. Found by what a row takes beyond the same row with one
    cell: a tokenizer that joins digits by threes takes 9 tokens more for 29 cells more.
    """
    # The shape in the header would take tokens of its own for the longer row.
    encoding = "rows" if encoding == "shape" else encoding
    missing = 0
    for first in range(N_COLOURS):
        alone = len(tokenize(encode(((first,),), encoding)))
        for step in range(N_COLOURS):
            row = tuple((first + step * place) % N_COLOURS for place in range(MAX_SIDE))
            added = len(tokenize(encode((row,), encoding))) - alone
            missing += abs(len(row) - 1 - added)
    return missing


def _grid(rows: list[str]) -> Grid | Unreadable:
    """The rows as a grid if they are one; what is wrong first counts."""
    if not rows:
        return Unreadable.EMPTY
    if not all(_DIGITS.fullmatch(row) for row in rows):
        return Unreadable.NOT_DIGITS
    if len({len(row) for row in rows}) > 1:
        return Unreadable.RAGGED
    if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
        return Unreadable.TOO_LARGE
    return tuple(tuple(map(int, row)) for row in rows)
