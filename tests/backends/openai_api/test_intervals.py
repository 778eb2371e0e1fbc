"""A tiny language model with every spelling known, and a service that shows its k likeliest tokens."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.data import CandidateScore, LogProbability
from backends.openai_api.scoring.intervals import Position, Token, bound

END = b""
TOKENS = [bytes(t) for n in (1, 2, 3) for t in itertools.product(b"ab", repeat=n)]
SLACK = 1e-9


@dataclass(frozen=True)
class ToyModel:
    """Draws its next-token distribution, peaked or flat, from the tokens so far."""

    seed: int
    vocabulary: tuple[bytes, ...]
    peakedness: float

    def next_tokens(self, context: Sequence[bytes]) -> dict[bytes, float]:
        draw = random.Random(f"{self.seed}{[*context]}")
        weights = {t: math.exp(self.peakedness * draw.gauss(0, 1)) for t in (*self.vocabulary, END)}
        total = sum(weights.values())
        return {token: weight / total for token, weight in weights.items()}

    def spellings(self, text: bytes, before: tuple[bytes, ...] = ()) -> Iterator[tuple[bytes, ...]]:
        if not text:
            yield before
        for token in self.vocabulary:
            if text.startswith(token):
                yield from self.spellings(text[len(token) :], (*before, token))

    def probability(self, spelling: Sequence[bytes]) -> float:
        steps = (self.next_tokens(spelling[:i])[token] for i, token in enumerate(spelling))
        return math.prod(steps)

    def served(self, k: int, max_tokens: int, decimals: int, greedy: bool) -> list[Position]:
        """The path that it generates, as a service would show it."""
        path: list[Position] = []
        context: list[bytes] = []
        draw = random.Random(self.seed)
        for _ in range(max_tokens):
            following = self.next_tokens(context)
            ranked = sorted(following, key=lambda token: -following[token])
            sampled = ranked[0] if greedy else draw.choice(ranked)
            if sampled == END:
                break
            top = [Token(t, round(math.log(following[t]), decimals)) for t in ranked[:k]]
            told = Token(sampled, round(math.log(following[sampled]), decimals))
            if sampled not in ranked[:k]:
                told = Token(sampled, -9999.0)
            path.append(Position.of(top, told, k))
            context.append(sampled)
        return path


models = st.builds(
    ToyModel,
    seed=st.integers(0, 10**6),
    vocabulary=st.sets(st.sampled_from(TOKENS)).map(lambda t: tuple(sorted({b"a", b"b", *t}))),
    peakedness=st.sampled_from([0.1, 1.0, 3.0, 8.0]),
)
texts = st.text("ab", min_size=1, max_size=5).map(str.encode)


def holds(interval: LogProbability, probability: float, tolerance: float = SLACK) -> bool:
    logp = math.log(probability)
    return interval.low - tolerance <= logp <= interval.high + tolerance


@given(models, texts, st.integers(1, 6), st.integers(1, 5), st.booleans())
def test_the_sum_over_all_spellings_is_inside_and_each_one_is_below_the_upper_end(
    model: ToyModel, text: bytes, k: int, max_tokens: int, greedy: bool
) -> None:
    score = bound(text, model.served(k, max_tokens, 15, greedy))
    spellings = list(model.spellings(text))
    assert holds(score.total, sum(map(model.probability, spellings)))
    starts = {spelling[0] for spelling in spellings}
    first = model.next_tokens(())
    assert math.log(max(first[t] for t in starts)) <= score.first_token.high + SLACK
    assert score.total.high <= score.first_token.high


@given(models, texts, st.integers(1, 6), st.integers(1, 5), st.data())
def test_with_the_number_of_tokens_known_the_spellings_of_that_many_are_inside(
    model: ToyModel, text: bytes, k: int, max_tokens: int, data: st.DataObject
) -> None:
    spelling = data.draw(st.sampled_from(list(model.spellings(text))))
    as_many = [s for s in model.spellings(text) if len(s) == len(spelling)]
    score = bound(text, model.served(k, max_tokens, 15, greedy=True), len(spelling))
    assert score.n_tokens == len(spelling)
    assert holds(score.total, sum(map(model.probability, as_many)))
    assert math.log(model.next_tokens(())[spelling[0]]) <= score.first_token.high + SLACK
    if len(as_many) == 1:
        assert holds(score.total, model.probability(spelling))
        assert holds(score.first_token, model.next_tokens(())[spelling[0]])


@given(models, texts, st.integers(1, 6), st.integers(1, 5))
def test_rounded_log_probabilities_move_an_end_by_their_rounding_alone(
    model: ToyModel, text: bytes, k: int, max_tokens: int
) -> None:
    score = bound(text, model.served(k, max_tokens, decimals=3, greedy=True))
    truth = sum(map(model.probability, model.spellings(text)))
    assert holds(score.total, truth, tolerance=5e-4 * (max_tokens + 1))


def listed(**logprobs: float) -> list[Token]:
    return [Token(text.encode(), logprob) for text, logprob in logprobs.items()]


def shown(taken: str, **logprobs: float) -> Position:
    return Position.of(listed(**logprobs), Token(taken.encode(), logprobs[taken]), k=20)


def test_a_listed_candidate_of_one_token_is_exact() -> None:
    score = bound(b"Paris", [shown("Rome", Rome=-0.1, Paris=-3.0, P=-4.0)], n_tokens=1)
    assert score.total == score.first_token == LogProbability.exact(-3.0)


def test_a_candidate_that_is_not_listed_is_bounded_and_never_zero() -> None:
    score = bound(b"Paris", [shown("Rome", Rome=-0.01, Oslo=-7.0)], n_tokens=1)
    assert score.total == LogProbability(low=-math.inf, high=-7.0)
    # What the listed ones leave is less than the least of them.
    score = bound(b"Paris", [shown("Rome", Rome=-0.1, Oslo=math.log(0.08))], n_tokens=1)
    assert score.total.high == pytest.approx(math.log(1 - 0.984836), abs=0.1)


def test_listed_probabilities_above_one_still_leave_room_for_what_is_not_listed() -> None:
    score = bound(b"Paris", [shown("Rome", Rome=0.0005, Oslo=-6.0)], n_tokens=1)
    assert -8 < score.total.high <= -6


def test_several_spellings_that_start_a_candidate_are_all_counted() -> None:
    position = shown("Italy", F=-5.0, Fra=-4.0, France=-3.0, Italy=-0.2)
    total = bound(b"France", [position]).total
    assert total.low == -3.0
    assert total.high >= math.log(math.exp(-3) + math.exp(-4) + math.exp(-5))


def test_the_path_is_followed_as_far_as_it_spells_the_candidate() -> None:
    path = [
        shown("New", New=-0.1, Peru=-3.0),
        shown(" Delhi", **{" Delhi": -0.2, " York": -2.0}),
    ]
    delhi, york, jersey = (bound(t, path) for t in (b"New Delhi", b"New York", b"New Jersey"))
    assert delhi.total.low == pytest.approx(-0.3)
    assert york.total.low == pytest.approx(-2.1)
    assert jersey.total.low == -math.inf
    assert york.n_tokens == 2
    assert york.first_token.low == -0.1


def test_where_the_path_ends_early_the_rest_of_the_candidate_may_be_certain() -> None:
    score = bound(b"New Delhi", [shown("New", New=-0.5, Peru=-9.0)], n_tokens=2)
    assert score.total.low == -math.inf
    assert score.total.high == pytest.approx(-0.5, abs=0.01)
    assert bound(b"New", []).total == LogProbability(low=-math.inf, high=0.0)


def test_the_mark_for_not_told_is_no_log_probability() -> None:
    listed_tokens = [*listed(Rome=-0.1, Oslo=-4.0), Token(b"Paris", -9999.0)]
    position = Position.of(listed_tokens, Token(b"Paris", -9999.0), 20)
    assert bound(b"Paris", [position], 1).total == LogProbability(low=-math.inf, high=-4.0)


def test_a_sampled_token_beyond_the_likeliest_does_not_lower_the_bound_of_the_others() -> None:
    sampled = Token(b"Bern", -12.0)
    position = Position.of([*listed(Rome=-0.1, Oslo=-4.0), sampled], sampled, k=2)
    assert bound(b"Paris", [position], 1).total.high == -4.0
    assert bound(b"Bern", [position], 1).total == LogProbability.exact(-12.0)


def test_a_token_of_unknown_bytes_may_be_the_candidates() -> None:
    tokens = [*listed(Rome=-1.0), Token(None, -1.5), *listed(Oslo=-8.0)]
    position = Position.of(tokens, tokens[0], 3)
    assert bound("été".encode(), [position], 1).total.high >= -1.5


def test_characters_are_matched_across_tokens_by_their_bytes() -> None:
    one, other = (Token(part, -0.5) for part in ("é".encode()[:1], "é".encode()[1:]))
    path = [Position.of([one], one, 1), Position.of([other], other, 1)]
    assert bound("é".encode(), path, 2).total == LogProbability.exact(-1.0)


def test_log_probabilities_too_small_for_floating_point_stay_exact() -> None:
    score: CandidateScore = bound(b"Paris", [shown("Rome", Rome=-0.0, Paris=-2000.0)], 1)
    assert score.total == LogProbability.exact(-2000.0)
