"""Pairs that are the same modulo augmentation are found, and no others."""

import functools
import random

from hypothesis import assume, given
from hypothesis import strategies as st

from kaarel_bet.experiments.arc.augmentation import (
    SYMMETRIES,
    Augmentation,
    exchanged,
    random_augmentation,
    shuffled,
)
from kaarel_bet.experiments.arc.grids import ArcTask, Pair
from kaarel_bet.experiments.arc.sets import Shared, fingerprint, load, shared
from tests.kaarel_bet.experiments.arc_tasks import pairs, tasks


@functools.cache
def tasks_of(source: str) -> list[ArcTask]:
    return load(source, "arc.test")


def leaked(source: str, other: str) -> list[Shared]:
    return shared(tasks_of(source), tasks_of(other))


def test_arc1_evaluation_is_found_in_arc2_training() -> None:
    found = leaked("arc1-evaluation", "arc2-training")
    assert len({s.task for s in found}) == 376
    assert sum(s.task == s.other for s in found) == 376


def test_arc1_evaluation_is_found_in_arc2_evaluation_under_another_name_too() -> None:
    found = leaked("arc1-evaluation", "arc2-evaluation")
    assert sum(s.task == s.other for s in found) == 6
    assert [s for s in found if s.task != s.other] == [Shared("55783887", "db695cfb", 5)]


def test_arc1_training_and_evaluation_share_three_pairs_and_two_more_in_other_colours() -> None:
    assert leaked("arc1-training", "arc1-evaluation") == [
        Shared("40853293", "070dd51e", 3),
        Shared("caa06a1f", "50a16a69", 2),
    ]


def test_arc2_evaluation_is_not_in_arc2_training() -> None:
    assert leaked("arc2-evaluation", "arc2-training") == []


@given(original=tasks(), seed=st.integers(0, 1000))
def test_no_augmentation_hides_a_task(original: ArcTask, seed: int) -> None:
    rng = random.Random(seed)
    augmentation = random_augmentation(rng, keep_background=False)
    disguised = rng.choice(exchanged([augmentation.apply_task(shuffled(original, rng))]))
    n_pairs = len(original.train) + len(original.test)
    assert shared([original], [disguised]) == [Shared(original.id, disguised.id, n_pairs)]


@given(one=pairs(), other=pairs(), data=st.data())
def test_different_pairs_have_different_fingerprints(
    one: Pair, other: Pair, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):  # the same cells, a single one of them changed
        changed = [list(row) for row in one.output]
        changed[0][0] = data.draw(st.integers(0, 9))
        other = Pair(input=one.input, output=tuple(map(tuple, changed)))
    assert (fingerprint(one) == fingerprint(other)) == same_by_search(one, other)


def same_by_search(one: Pair, other: Pair) -> bool:
    """Whether some symmetry and some one-to-one renaming of colours makes the one pair the other."""
    return any(renamed(s.apply_task(as_task(one)).train[0], other) for s in SYMMETRIES)


def renamed(one: Pair, other: Pair) -> bool:
    for first, second in ((one.input, other.input), (one.output, other.output)):
        if [len(row) for row in first] != [len(row) for row in second]:
            return False
    cells = [[c for grid in (p.input, p.output) for row in grid for c in row] for p in (one, other)]
    together = set(zip(*cells, strict=True))
    return len(together) == len({a for a, _ in together}) == len({b for _, b in together})


def as_task(pair: Pair) -> ArcTask:
    return ArcTask(id="task", train=(pair,), test=(pair,))


@given(pair=pairs())
def test_input_and_output_are_not_turned_apart(pair: Pair) -> None:
    turn = Augmentation(symmetry=1)
    apart = Pair(input=turn.apply(pair.input), output=pair.output)
    assume(not same_by_search(pair, apart))
    assert shared([as_task(pair)], [as_task(apart)]) == []
