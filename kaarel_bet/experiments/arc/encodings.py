"""Grids as text and back: fenced rows of digits, as arc24 writes them (https://github.com/ironbar/arc24).

rows            shape                     numbered
```grid         ```grid shape: 2x3        ```grid
012             012                       1 012
345             345                       2 345
```             ```                       ```
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Literal

from kaarel_bet.experiments.arc.grids import MAX_SIDE, N_COLOURS, Grid, size

Encoding = Literal["rows", "shape", "numbered"]

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
    lines = [_line(row, number, encoding) for number, row in enumerate(grid, start=1)]
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
    missing = 0
    for first in range(N_COLOURS):
        alone = len(tokenize(_fenced_line((first,), encoding)))
        for step in range(N_COLOURS):
            row = tuple((first + step * place) % N_COLOURS for place in range(MAX_SIDE))
            added = len(tokenize(_fenced_line(row, encoding))) - alone
            missing += abs(len(row) - 1 - added)
    return missing


def _line(row: tuple[int, ...], number: int, encoding: Encoding) -> str:
    cells = "".join(map(str, row))
    return f"{number} {cells}" if encoding == "numbered" else cells


def _fenced_line(row: tuple[int, ...], encoding: Encoding) -> str:
    # Not `encode`: the shape in its header would take tokens of its own for the longer row.
    return f"{_FENCE}grid\n{_line(row, 1, encoding)}\n{_FENCE}"


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
