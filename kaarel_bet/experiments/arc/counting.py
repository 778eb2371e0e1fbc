"""Learning to count: grids with objects, and five questions about them.

After iteration 2 of arc24 (https://github.com/ironbar/arc24), which asked whether a model that learned to
count learns ARC better.

An object is a set of cells of one colour, connected through their sides (4-connected), that is as large as
it can be. Colour 0 is the background and no object.
"""

import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from backends.data import Message, TrainingExample
from kaarel_bet.experiments.arc.encodings import Encoding, encode
from kaarel_bet.experiments.arc.grids import BACKGROUND, N_COLOURS, Grid

SYSTEM = (
    "You answer questions about grids of digits. Digits are colours and 0 is the background. An object is "
    "a group of cells of one colour that touch at their sides."
)

_MIN_SIDE = 2
_MAX_OBJECTS = 8
_MAX_AREA = 12

_Cell = tuple[int, int]


class GridObject(NamedTuple):
    """An object: its colour, and its area in cells."""

    colour: int
    area: int


def counting_examples(
    n: int, seed: int, encoding: Encoding, max_side: int = 12
) -> list[TrainingExample]:
    """Chats about n random grids of at most `max_side` rows and columns (2..30).

    Each chat asks all five questions, in a random order; the grid stands before the first. The loss is on
    every answer.
    """
    rng = random.Random(f"counting/{seed}")
    return [_example(_random_grid(rng, max_side), rng, encoding) for _ in range(n)]


def objects(grid: Grid) -> list[GridObject]:
    """The objects of a grid, in the order of their first cells, row by row."""
    left = {
        (i, j): colour
        for i, row in enumerate(grid)
        for j, colour in enumerate(row)
        if colour != BACKGROUND
    }
    found: list[GridObject] = []
    while left:
        start, colour = next(iter(left.items()))
        del left[start]
        area, border = 0, [start]
        while border:
            area += 1
            for cell in _neighbours(border.pop()):
                if left.get(cell) == colour:
                    del left[cell]
                    border.append(cell)
        found.append(GridObject(colour, area))
    return found


def _count(found: list[GridObject]) -> str:
    return str(len(found))


def _areas(found: list[GridObject]) -> str:
    return ", ".join(str(area) for area in sorted(o.area for o in found))


def _largest(found: list[GridObject]) -> str:
    return str(max(o.area for o in found))


def _smallest(found: list[GridObject]) -> str:
    return str(min(o.area for o in found))


def _by_colour(found: list[GridObject]) -> str:
    counts = Counter(o.colour for o in found)
    return ", ".join(f"{colour}: {counts[colour]}" for colour in sorted(counts))


QUESTIONS: dict[str, Callable[[list[GridObject]], str]] = {
    "How many objects are there?": _count,
    "What are the areas of the objects, in ascending order?": _areas,
    "What is the area of the largest object?": _largest,
    "What is the area of the smallest object?": _smallest,
    "How many objects are there of each colour?": _by_colour,
}
"""Question -> what answers it of a grid's objects, of which there is at least one."""


def _example(grid: Grid, rng: random.Random, encoding: Encoding) -> TrainingExample:
    found = objects(grid)
    turns = [Message(role="system", content=SYSTEM)]
    for place, question in enumerate(rng.sample(list(QUESTIONS), len(QUESTIONS))):
        asked = question if place else f"{encode(grid, encoding)}\n\n{question}"
        turns.append(Message(role="user", content=asked))
        turns.append(Message(role="assistant", content=QUESTIONS[question](found)))
    return TrainingExample(messages=tuple(turns))


def _random_grid(rng: random.Random, max_side: int) -> Grid:
    """A grid of random size with blobs of random colours and areas, where there was room for them."""
    rows, columns = rng.randint(_MIN_SIDE, max_side), rng.randint(_MIN_SIDE, max_side)
    cells = {(i, j): BACKGROUND for i in range(rows) for j in range(columns)}
    for _ in range(rng.randint(1, _MAX_OBJECTS)):
        free = [cell for cell, colour in cells.items() if colour == BACKGROUND]
        if not free:
            break
        _grow(cells, rng.choice(free), rng.randint(1, _MAX_AREA), rng)
    return tuple(tuple(cells[i, j] for j in range(columns)) for i in range(rows))


def _grow(cells: dict[_Cell, int], start: _Cell, area: int, rng: random.Random) -> None:
    """Colours up to `area` connected background cells from `start` on; may touch other objects."""
    colour = rng.choice([c for c in range(N_COLOURS) if c != BACKGROUND])
    border = [start]
    while border and area > 0:
        cell = border.pop(rng.randrange(len(border)))
        if cells.get(cell) != BACKGROUND:
            continue
        cells[cell] = colour
        area -= 1
        border += _neighbours(cell)


def _neighbours(cell: _Cell) -> list[_Cell]:
    i, j = cell
    return [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
