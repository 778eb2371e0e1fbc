"""What predictions are worth, alone and together."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaarel_bet.experiments.arc.grids import Grid, Unreadable
from kaarel_bet.experiments.arc.metrics import (
    Outcome,
    best_of_k,
    outcome,
    pass_at_k,
    vote_at_k,
)
from kaarel_bet.experiments.arc.replies import vote
from tests.kaarel_bet.experiments.arc_tasks import grids

_EXPECTED: Grid = ((1, 2), (3, 4))
_A, _B, _C = ((0,),), ((1,),), ((2,),)
predictions = st.lists(st.sampled_from([_A, _B, _C, *Unreadable]), max_size=12)


@pytest.mark.parametrize(
    ("prediction", "worth"),
    [
        (((1, 2), (3, 4)), Outcome(grid=True, size=True, cells=1.0, answered=True)),
        (((1, 2), (3, 0)), Outcome(grid=False, size=True, cells=0.75, answered=True)),
        (((1, 2, 3, 4),), Outcome(grid=False, size=False, cells=0.0, answered=True)),
        (((1, 2),), Outcome(grid=False, size=False, cells=0.0, answered=True)),
        (Unreadable.RAGGED, Outcome(grid=False, size=False, cells=0.0, answered=False)),
    ],
)
def test_a_prediction_is_judged_by_grid_size_and_cells(
    prediction: Grid | Unreadable, worth: Outcome
) -> None:
    assert outcome(prediction, _EXPECTED) == worth


@given(prediction=grids(max_side=3), expected=grids(max_side=3))
def test_a_grid_is_right_when_all_its_cells_are(prediction: Grid, expected: Grid) -> None:
    found = outcome(prediction, expected)
    assert found.grid == (prediction == expected) == (found.cells == 1.0)
    assert found.size or found.cells == 0


def test_pass_at_k_is_the_share_of_draws_that_hold_a_correct_sample() -> None:
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_of_many_samples_stays_exact() -> None:
    assert pass_at_k(10_000, 1, 2) == pytest.approx(2 / 10_000, rel=1e-9)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 0, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0), (0, 0, 1)])
def test_pass_at_k_of_impossible_counts_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, c, k)


def test_the_best_of_two_is_not_pass_at_two() -> None:
    answers: list[Grid | Unreadable] = [_A, Unreadable.RAGGED, _B, _A]
    assert best_of_k(answers, _A, 1)
    assert not best_of_k(answers, _B, 2)
    assert best_of_k(answers, _B, 3)
    assert pass_at_k(4, 1, 2) == 0.5


@given(answers=predictions)
def test_votes_are_counted_and_ties_go_to_the_first(answers: list[Grid | Unreadable]) -> None:
    votes = vote(answers)
    readable = [answer for answer in answers if not isinstance(answer, Unreadable)]
    assert dict(votes) == dict(Counter(readable))
    for (one, n), (other, m) in itertools.pairwise(votes):
        assert n > m or (n == m and readable.index(one) < readable.index(other))


@given(answers=predictions, seed=st.integers(0, 100))
def test_what_wins_clearly_wins_in_any_order(answers: list[Grid | Unreadable], seed: int) -> None:
    most = [_A] * 13
    mixed = random.Random(seed).sample([*answers, *most], len(answers) + len(most))
    assert vote_at_k(mixed, _A, 1)
    assert vote(mixed)[0] == (_A, mixed.count(_A))


def test_vote_at_k_asks_the_k_with_most_votes() -> None:
    answers: list[Grid | Unreadable] = [_C, _B, _A, _B, _A, Unreadable.EMPTY, Unreadable.EMPTY]
    assert vote(answers) == [(_B, 2), (_A, 2), (_C, 1)]
    assert not vote_at_k(answers, _A, 1)
    assert vote_at_k(answers, _A, 2)
    assert not vote_at_k(answers, _C, 2)
    assert not vote_at_k([], _A, 2)
