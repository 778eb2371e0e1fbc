"""Variants of tasks that the same rule solves: turned, recoloured, reordered, train and test exchanged.

Training sets are made of them, and views: what predictions are made from, to be undone on the answers.

The counts are arc24's (https://github.com/ironbar/arc24): the 400 tasks of ARC-AGI-1's training set make
3,200 with the symmetries of the square, and those 14,336 with train and test exchanged.
"""

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from backends.schema import Strict
from kaarel_bet.experiments.arc.grids import BACKGROUND, N_COLOURS, ArcItem, ArcTask, Grid, Pair
from kaarel_bet.experiments.arc.settings import AugmentationSettings

_STEPS = {
    "identity": (False, False, False),
    "rot90": (True, True, False),
    "rot180": (False, True, True),
    "rot270": (True, False, True),
    "flipud": (False, True, False),
    "fliplr": (False, False, True),
    "transpose": (True, False, False),
    "antitranspose": (True, True, True),
}
"""The eight symmetries by numpy's names (`rot90` turns anticlockwise), and what makes them up.

That is whether the grid is transposed, and whether then its rows and its columns are reversed.
"""

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
        transposed, rows_reversed, columns_reversed = _STEPS[SYMMETRY_NAMES[self.symmetry]]
        if transposed:
            grid = tuple(zip(*grid, strict=True))
        if rows_reversed:
            grid = grid[::-1]
        if columns_reversed:
            grid = tuple(row[::-1] for row in grid)
        return tuple(tuple(self.colours[cell] for cell in row) for row in grid)

    def invert(self, grid: Grid) -> Grid:
        """The grid that `apply` makes this one of; brings a prediction back to the original task."""
        backwards = {"rot90": "rot270", "rot270": "rot90"}  # the others undo themselves
        name = SYMMETRY_NAMES[self.symmetry]
        inverse = Augmentation(
            symmetry=SYMMETRY_NAMES.index(backwards.get(name, name)),
            colours=tuple(self.colours.index(colour) for colour in range(N_COLOURS)),
        )
        return inverse.apply(grid)

    def apply_task(self, task: ArcTask) -> ArcTask:
        """The task with all its grids transformed, and the augmentation's name in its id."""
        if self == IDENTITY:
            return task
        train, test = (
            tuple(Pair(input=self.apply(p.input), output=self.apply(p.output)) for p in pairs)
            for pairs in (task.train, task.test)
        )
        return ArcTask(id=f"{task.id}/{self.name}", train=train, test=test)


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
    found = []
    for task in tasks:
        found.append(task)
        for i, j in itertools.product(range(len(task.train)), range(len(task.test))):
            train = (*task.train[:i], task.test[j], *task.train[i + 1 :])
            test = (*task.test[:j], task.train[i], *task.test[j + 1 :])
            found.append(ArcTask(id=f"{task.id}/swap-{i}-{j}", train=train, test=test))
    return found


def shuffled(task: ArcTask, rng: random.Random) -> ArcTask:
    """The task with its train pairs in a random order, which is in its id."""
    order = rng.sample(range(len(task.train)), len(task.train))
    name = f"{task.id}/order-{'-'.join(map(str, order))}"
    return ArcTask(id=name, train=tuple(task.train[place] for place in order), test=task.test)


def recoloured(task: ArcTask, rng: random.Random, *, keep_background: bool = False) -> ArcTask:
    """The task with its colours permuted at random, alike in all its grids."""
    return Augmentation(colours=_random_colours(rng, keep_background)).apply_task(task)


def _random_colours(rng: random.Random, keep_background: bool) -> tuple[int, ...]:
    free = [c for c in range(N_COLOURS) if not (keep_background and c == BACKGROUND)]
    becomes = dict(zip(free, rng.sample(free, len(free)), strict=True))
    return tuple(becomes.get(colour, colour) for colour in range(N_COLOURS))


# --- views ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """An item's task as the model sees it; `augmentation` turns grids into this view and back."""

    id: str
    item: ArcItem
    augmentation: Augmentation
    task: ArcTask

    @property
    def index(self) -> int:
        """Which test input is asked about."""
        return self.item.index


def views(item: ArcItem, n: int, by: AugmentationSettings, seed: int) -> list[View]:
    """The first `n` views, at least one: the task as it is, then as arms are trained on it.

    Its symmetries in turn, recoloured and reordered, each as far as the settings have it. They
    depend on nothing but the arguments, so that answers can be mapped back later.
    """
    rng = random.Random(f"views/{item.id}/{seed}")
    found = [View(f"{item.id}@0", item, IDENTITY, item.task)]
    for number in range(1, n):
        symmetry = number % len(SYMMETRIES) if by.symmetries else IDENTITY.symmetry
        drawn = random_augmentation(rng, keep_background=by.keep_background)
        colours = drawn.colours if by.colours else IDENTITY.colours
        augmentation = Augmentation(symmetry=symmetry, colours=colours)
        task = augmentation.apply_task(item.task)
        task = shuffled(task, rng) if by.order else task
        found.append(View(f"{item.id}@{number}", item, augmentation, task))
    return found
