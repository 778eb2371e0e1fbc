"""Variants of tasks that the same rule solves: turned, recoloured, reordered, train and test exchanged.

The counts are arc24's (https://github.com/ironbar/arc24): the 400 tasks of ARC-AGI-1's training set make
3,200 with the symmetries of the square, and those 14,336 with train and test exchanged.
"""

import random
from collections.abc import Iterable
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from backends.schema import Strict
from kaarel_bet.experiments.arc.grids import BACKGROUND, N_COLOURS, ArcTask, Grid, Pair


class _Steps(NamedTuple):
    """What makes up a symmetry; the grid is transposed first."""

    transposed: bool
    rows_reversed: bool
    columns_reversed: bool


_STEPS = {
    "identity": _Steps(False, False, False),
    "rot90": _Steps(True, True, False),
    "rot180": _Steps(False, True, True),
    "rot270": _Steps(True, False, True),
    "flipud": _Steps(False, True, False),
    "fliplr": _Steps(False, False, True),
    "transpose": _Steps(True, False, False),
    "antitranspose": _Steps(True, True, True),
}
"""The eight symmetries by numpy's names; `rot90` turns anticlockwise."""

SYMMETRY_NAMES = tuple(_STEPS)


def _permutation(colours: tuple[int, ...]) -> tuple[int, ...]:
    if sorted(colours) != list(range(N_COLOURS)):
        raise ValueError(f"not a permutation of the colours 0..9: {colours}")
    return colours


class Augmentation(Strict):
    """A symmetry of the square (an index into `SYMMETRY_NAMES`) and a permutation of the colours.

    Colour c becomes `colours[c]`. Applied to the input and the output of a pair alike.
    """

    symmetry: Annotated[int, Field(ge=0, lt=len(_STEPS))] = 0
    colours: Annotated[tuple[int, ...], AfterValidator(_permutation)] = tuple(range(N_COLOURS))

    @property
    def name(self) -> str:
        """What it does, for a task's id: "rot90", "colours-0213456789", "rot90+colours-0213456789"."""
        parts = [SYMMETRY_NAMES[self.symmetry]] if self.symmetry else []
        if self.colours != tuple(range(N_COLOURS)):
            parts.append("colours-" + "".join(map(str, self.colours)))
        return "+".join(parts) or SYMMETRY_NAMES[0]

    def apply(self, grid: Grid) -> Grid:
        """The grid, transformed."""
        steps = _STEPS[SYMMETRY_NAMES[self.symmetry]]
        if steps.transposed:
            grid = tuple(zip(*grid, strict=True))
        return _recolour(_reverse(grid, steps), self.colours)

    def invert(self, grid: Grid) -> Grid:
        """The grid that `apply` makes this one of; brings a prediction back to the original task."""
        steps = _STEPS[SYMMETRY_NAMES[self.symmetry]]
        grid = _reverse(grid, steps)
        if steps.transposed:
            grid = tuple(zip(*grid, strict=True))
        original = tuple(self.colours.index(colour) for colour in range(N_COLOURS))
        return _recolour(grid, original)

    def apply_task(self, task: ArcTask) -> ArcTask:
        """The task with all its grids transformed, and the augmentation's name in its id."""
        if self == IDENTITY:
            return task
        return ArcTask(
            id=f"{task.id}/{self.name}",
            train=tuple(self._apply_pair(pair) for pair in task.train),
            test=tuple(self._apply_pair(pair) for pair in task.test),
        )

    def _apply_pair(self, pair: Pair) -> Pair:
        return Pair(input=self.apply(pair.input), output=self.apply(pair.output))


IDENTITY = Augmentation()
SYMMETRIES = tuple(Augmentation(symmetry=index) for index in range(len(_STEPS)))
"""The eight symmetries of the square, the colours kept; the first is the identity."""


def random_augmentation(rng: random.Random, *, keep_background: bool = False) -> Augmentation:
    """A symmetry and a permutation of the colours, each uniformly; the background may be kept as it is."""
    return Augmentation(
        symmetry=rng.randrange(len(_STEPS)), colours=_random_colours(rng, keep_background)
    )


def symmetric(tasks: Iterable[ArcTask]) -> list[ArcTask]:
    """Every task in all eight symmetries, its variants after it."""
    return [symmetry.apply_task(task) for task in tasks for symmetry in SYMMETRIES]


def exchanged(tasks: Iterable[ArcTask]) -> list[ArcTask]:
    """Every task, and after it those with one train pair and one test pair exchanged.

    A task becomes 1 + n_train * n_test.
    """
    return [variant for task in tasks for variant in _exchanges(task)]


def shuffled(task: ArcTask, rng: random.Random) -> ArcTask:
    """The task with its train pairs in a random order, which is in its id."""
    order = rng.sample(range(len(task.train)), len(task.train))
    name = "-".join(map(str, order))
    return task.model_copy(
        update={
            "id": f"{task.id}/order-{name}",
            "train": tuple(task.train[place] for place in order),
        }
    )


def recoloured(task: ArcTask, rng: random.Random, *, keep_background: bool = False) -> ArcTask:
    """The task with its colours permuted at random, alike in all its grids."""
    return Augmentation(colours=_random_colours(rng, keep_background)).apply_task(task)


def _exchanges(task: ArcTask) -> Iterable[ArcTask]:
    yield task
    for i, shown in enumerate(task.train):
        for j, asked in enumerate(task.test):
            yield task.model_copy(
                update={
                    "id": f"{task.id}/swap-{i}-{j}",
                    "train": (*task.train[:i], asked, *task.train[i + 1 :]),
                    "test": (*task.test[:j], shown, *task.test[j + 1 :]),
                }
            )


def _random_colours(rng: random.Random, keep_background: bool) -> tuple[int, ...]:
    free = [c for c in range(N_COLOURS) if not (keep_background and c == BACKGROUND)]
    becomes = dict(zip(free, rng.sample(free, len(free)), strict=True))
    return tuple(becomes.get(colour, colour) for colour in range(N_COLOURS))


def _reverse(grid: Grid, steps: _Steps) -> Grid:
    if steps.rows_reversed:
        grid = grid[::-1]
    if steps.columns_reversed:
        grid = tuple(row[::-1] for row in grid)
    return grid


def _recolour(grid: Grid, colours: tuple[int, ...]) -> Grid:
    return tuple(tuple(colours[cell] for cell in row) for row in grid)
