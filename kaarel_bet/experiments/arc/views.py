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
from kaarel_bet.experiments.arc.settings import AugmentationSettings


@dataclass(frozen=True)
class View:
    """An item's task as the model sees it; `augmentation` turns grids into this view and back."""

    id: str
    item: ArcItem
    augmentation: Augmentation
    task: ArcTask


def views(item: ArcItem, n: int, by: AugmentationSettings, seed: int) -> list[View]:
    """The first `n` views: the task as it is, then as arms are trained on it.

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
    return found[:n]
