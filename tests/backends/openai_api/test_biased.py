"""The arithmetic of biased sampling; test_scoring.py asks a service."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.data import CandidateScore, LogProbability
from backends.openai_api.scoring.biased import narrowed, unbiased
from backends.openai_api.scoring.binomial import clopper_pearson


@given(st.floats(1e-12, 0.999), st.integers(0, 40))
def test_taking_the_bias_off_gives_the_probability_back(p: float, bias: int) -> None:
    odds = math.exp(bias) * p / (1 - p)
    q = odds / (1 + odds)
    if q < 1 - 1e-6:  # nearer to 1 a float does not tell how near
        assert unbiased(q, bias) == pytest.approx(math.log(p), abs=1e-6)


def test_none_and_all_of_the_samples_leave_an_end_open() -> None:
    assert unbiased(0.0, 20) == -math.inf
    assert unbiased(1.0, 20) == 0.0


# Clopper and Pearson's intervals at 95 %, as R's binom.test gives them.
@pytest.mark.parametrize(
    ("hits", "n", "expected"),
    [
        (0, 10, (0.0, 0.3084971)),
        (3, 10, (0.06673951, 0.6524529)),
        (10, 10, (0.6915029, 1.0)),
        (64, 128, (0.4103756, 0.5896244)),
    ],
)
def test_intervals_of_proportions_are_the_known_ones(
    hits: int, n: int, expected: tuple[float, float]
) -> None:
    assert clopper_pearson(hits, n, 0.95) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.97])
def test_intervals_of_proportions_cover_as_often_as_they_say(p: float) -> None:
    draw = random.Random(0)
    intervals = [clopper_pearson(hits, 64, 0.9) for hits in range(65)]
    drawn = [intervals[sum(draw.random() < p for _ in range(64))] for _ in range(1000)]
    assert sum(low <= p <= high for low, high in drawn) >= 0.88 * 1000


def interval(low: float, high: float) -> LogProbability:
    return LogProbability(low=low, high=high)


WIDE = interval(-math.inf, -6.0)
SCORE = CandidateScore(total=interval(-math.inf, -7.0), first_token=WIDE, n_tokens=2)


def test_a_sample_narrows_the_first_token_on_both_sides_and_the_whole_from_above() -> None:
    found = narrowed(SCORE, interval(-9.0, -8.0), is_whole=False)
    assert found.first_token == interval(-9.0, -8.0)
    assert found.total == interval(-math.inf, -8.0)
    assert narrowed(SCORE, interval(-9.0, -8.0), is_whole=True).total == interval(-9.0, -8.0)


def test_what_is_certain_is_not_given_up_for_what_is_likely() -> None:
    found = narrowed(SCORE, interval(-9.0, -5.0), is_whole=False)
    assert found.first_token == interval(-9.0, -6.0)
    assert found.total == interval(-math.inf, -7.0)
    assert narrowed(SCORE, interval(-5.0, -4.0), is_whole=True) == SCORE
