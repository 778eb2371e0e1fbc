"""Variants of tasks: as many as there should be, each invertible, none lost and none twice."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kaarel_bet.experiments.arc.augmentation import (
    IDENTITY,
    SYMMETRIES,
    SYMMETRY_NAMES,
    Augmentation,
    exchanged,
    random_augmentation,
    recoloured,
    shuffled,
    symmetric,
)
from kaarel_bet.experiments.arc.grids import ArcTask, Grid
from kaarel_bet.experiments.arc.sets import load
from tests.kaarel_bet.experiments.arc_tasks import grids, task, tasks

_ASYMMETRIC: Grid = ((0, 1, 2), (3, 4, 5))
_NUMPY = {
    "identity": np.array,
    "rot90": np.rot90,
    "rot180": lambda grid: np.rot90(grid, 2),
    "rot270": lambda grid: np.rot90(grid, 3),
    "flipud": np.flipud,
    "fliplr": np.fliplr,
    "transpose": np.transpose,
    "antitranspose": lambda grid: np.rot90(grid, 2).T,
}

augmentations = st.builds(
    Augmentation, symmetry=st.integers(0, 7), colours=st.permutations(range(10)).map(tuple)
)


def every_pair(tasks: list[ArcTask]) -> Counter[tuple[Grid, Grid]]:
    return Counter((p.input, p.output) for task in tasks for p in (*task.train, *task.test))


def test_arc1_training_becomes_as_many_tasks_as_arc24_counted() -> None:
    original = load("arc1-training", "arc.train")
    turned = symmetric(original)
    everything = exchanged(turned)
    assert (len(original), len(turned), len(everything)) == (400, 3200, 14336)
    assert len({task.id for task in everything}) == 14336
    assert Counter(task.id.partition("/")[0] for task in turned) == {
        task.id: 8 for task in original
    }


@given(augmentation=augmentations, grid=grids(max_side=6))
def test_inverting_what_was_applied_gives_the_grid_back(
    augmentation: Augmentation, grid: Grid
) -> None:
    assert augmentation.invert(augmentation.apply(grid)) == grid
    assert augmentation.apply(augmentation.invert(grid)) == grid


@given(grid=grids(max_side=6))
def test_the_symmetries_are_numpys_of_the_same_name(grid: Grid) -> None:
    assert set(SYMMETRY_NAMES) == set(_NUMPY)
    for symmetry in SYMMETRIES:
        assert symmetry.apply(grid) == tuple(map(tuple, _NUMPY[symmetry.name](grid).tolist()))


def test_the_symmetries_are_the_group_of_eight() -> None:
    images = {symmetry.apply(_ASYMMETRIC) for symmetry in SYMMETRIES}
    assert len(images) == 8
    for symmetry in SYMMETRIES:
        assert {symmetry.apply(image) for image in images} == images
        assert {symmetry.invert(image) for image in images} == images
    assert SYMMETRIES[0] == IDENTITY


@given(augmentation=augmentations, original=tasks())
def test_a_task_is_transformed_pair_by_pair(augmentation: Augmentation, original: ArcTask) -> None:
    made = augmentation.apply_task(original)
    for before, after in ((original.train, made.train), (original.test, made.test)):
        assert [augmentation.invert(pair.input) for pair in after] == [p.input for p in before]
        assert [augmentation.invert(pair.output) for pair in after] == [p.output for p in before]
    assert made.id.partition("/")[0] == original.id
    assert (made.id == original.id) == (augmentation == IDENTITY)


@given(original=tasks())
def test_every_train_pair_changes_places_with_every_test_pair_once(original: ArcTask) -> None:
    variants = exchanged([original])
    assert variants[0] == original
    assert len(variants) == 1 + len(original.train) * len(original.test)
    assert len({variant.id for variant in variants}) == len(variants)
    for variant in variants:
        assert every_pair([variant]) == every_pair([original])
        assert variant.id.partition("/")[0] == original.id


def test_exchanged_pairs_take_each_others_places() -> None:
    original = task(n_train=3, n_test=2)
    variant = next(v for v in exchanged([original]) if v.id == "task/swap-2-1")
    assert variant.train == (*original.train[:2], original.test[1])
    assert variant.test == (original.test[0], original.train[2])


@given(original=tasks(), seed=st.integers(0, 1000))
def test_shuffling_reorders_the_train_pairs_as_the_id_says(original: ArcTask, seed: int) -> None:
    made = shuffled(original, random.Random(seed))
    order = [int(place) for place in made.id.removeprefix("task/order-").split("-")]
    assert made.train == tuple(original.train[place] for place in order)
    assert sorted(order) == list(range(len(original.train)))
    assert made.test == original.test


@given(seed=st.integers(0, 1000), keep=st.booleans())
def test_random_augmentations_are_seeded_and_may_keep_the_background(seed: int, keep: bool) -> None:
    one, same = (random_augmentation(random.Random(seed), keep_background=keep) for _ in range(2))
    assert one == same
    assert not keep or one.colours[0] == 0


def test_every_symmetry_and_every_colour_is_drawn() -> None:
    rng = random.Random(0)
    drawn = [random_augmentation(rng, keep_background=False) for _ in range(400)]
    assert {a.symmetry for a in drawn} == set(range(8))
    for colour in range(10):
        assert {a.colours[colour] for a in drawn} == set(range(10))


def test_recolouring_changes_all_grids_alike() -> None:
    made = recoloured(task(n_train=3), random.Random(0), keep_background=True)
    colours = tuple(int(digit) for digit in made.id.removeprefix("task/colours-"))
    assert made.train == Augmentation(colours=colours).apply_task(task(n_train=3)).train
    assert colours != IDENTITY.colours
    assert colours[0] == 0


def test_ids_say_what_was_done() -> None:
    both = Augmentation(symmetry=1, colours=(0, 2, 1, 3, 4, 5, 6, 7, 8, 9))
    assert both.apply_task(task(name="007bbfb7")).id == "007bbfb7/rot90+colours-0213456789"
    assert [t.id for t in symmetric([task(name="a")])][:3] == ["a", "a/rot90", "a/rot180"]


@pytest.mark.parametrize("colours", [(0,) * 10, tuple(range(9)), tuple(range(1, 11))])
def test_colours_that_are_no_permutation_are_refused(colours: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="not a permutation"):
        Augmentation(colours=colours)
