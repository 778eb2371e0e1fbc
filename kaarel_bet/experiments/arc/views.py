"""The views of a task that predictions are made from: augmentations, to be undone on the answers."""

import random
from dataclasses import dataclass

from kaarel_bet.experiments.arc.augmentation import (
    IDENTITY,
    SYMMETRIES,
    Augmentation,
    random_augmentation,
    shuffled,
)
from kaarel_bet.experiments.arc.grids import ArcTask
from kaarel_bet.experiments.arc.items import ArcItem


@dataclass(frozen=True)
class View:
    """An item's task as the model sees it; `augmentation` turns grids into this view and back."""

    id: str
    item: ArcItem
    augmentation: Augmentation
    task: ArcTask


def views(item: ArcItem, n: int, seed: int) -> list[View]:
    """The first `n` views: the task as it is, then its symmetries in turn, recoloured and reordered.

    They depend on nothing but the arguments, so that answers can be mapped back later.
    """
    rng = random.Random(f"views/{item.id}/{seed}")
    found = [View(f"{item.id}@0", item, IDENTITY, item.task)]
    for number in range(1, n):
        symmetry = SYMMETRIES[number % len(SYMMETRIES)].symmetry
        colours = random_augmentation(rng, keep_background=False).colours
        augmentation = Augmentation(symmetry=symmetry, colours=colours)
        task = shuffled(augmentation.apply_task(item.task), rng)
        found.append(View(f"{item.id}@{number}", item, augmentation, task))
    return found[:n]
