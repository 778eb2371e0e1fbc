from collections import Counter

import pytest
import torch

from backends.local.sampling import Draws, Sampling, choose_tokens, penalised

PROBABILITIES = [0.5, 0.3, 0.15, 0.05]
LOGITS = torch.tensor([PROBABILITIES]).log()


def drawn(sampling: Sampling, n: int = 4000) -> list[float]:
    """The share of each token in `n` draws."""
    draws = Draws(sampling.seed, 0)
    rows = choose_tokens(LOGITS.expand(n, -1), [sampling] * n, [draws] * n)
    counts = Counter(rows)
    return [counts[token] / n for token in range(4)]


def test_temperature_1_draws_the_models_own_distribution() -> None:
    assert drawn(Sampling(1)) == pytest.approx(PROBABILITIES, abs=0.03)


def test_a_temperature_sharpens() -> None:
    squares = [p**2 for p in PROBABILITIES]
    expected = [p / sum(squares) for p in squares]
    assert drawn(Sampling(1, temperature=0.5)) == pytest.approx(expected, abs=0.03)
    assert drawn(Sampling(1, temperature=1e-12)) == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.0, 1), (0.4, 1), (0.5, 1), (0.51, 2), (0.81, 3), (1.0, 4)]
)
def test_top_p_keeps_the_fewest_likeliest_tokens_that_have_it(top_p: float, kept: int) -> None:
    whole = sum(PROBABILITIES[:kept])
    expected = [p / whole for p in PROBABILITIES[:kept]] + [0] * (4 - kept)
    assert drawn(Sampling(1, top_p=top_p)) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("n_tokens", [7, 256, 1000])
def test_temperature_0_takes_the_first_of_the_likeliest_tokens(n_tokens: int) -> None:
    torch.manual_seed(0)
    logits = torch.randint(-9, 1, (50, n_tokens)).float()  # negative, and full of equals
    logits[0] = -torch.inf
    logits[0, -1] = -1e30
    greedy = Sampling(1, temperature=0)
    tokens = choose_tokens(logits, [greedy] * 50, [Draws(0, 0)] * 50)
    assert tokens == [row.index(max(row)) for row in logits.tolist()]


def test_a_bias_is_added_to_the_logit() -> None:
    biased = [0.5, 0.3, 0.15, 0.05 * 7.389056]
    expected = [p / sum(biased) for p in biased]
    assert drawn(Sampling(1, logit_bias={3: 2.0})) == pytest.approx(expected, abs=0.03)


def test_a_bias_of_100_forces_a_token_and_its_negative_forbids_one() -> None:
    assert drawn(Sampling(1, temperature=0, logit_bias={3: 100}), 1) == [0, 0, 0, 1]
    assert drawn(Sampling(1, logit_bias={0: -100}))[0] == 0


def test_penalties_are_subtracted_by_the_counts_of_tokens() -> None:
    logits = torch.zeros(4, 4)
    samplings = [
        Sampling(1, frequency_penalty=0.5),
        Sampling(1, presence_penalty=-1.5),
        Sampling(1, frequency_penalty=2, presence_penalty=0.25),
        Sampling(1),
    ]
    counts = [{0: 3, 2: 1}, {0: 3}, {1: 2}, {3: 9}]
    assert penalised(logits, samplings, counts).tolist() == [
        [-1.5, 0, -0.5, 0],
        [1.5, 0, 0, 0],
        [0, -4.25, 0, 0],
        [0, 0, 0, 0],
    ]
    assert not logits.any()


def test_a_row_is_chosen_for_as_if_it_were_alone() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    samplings = [
        Sampling(1, temperature=0),
        Sampling(1, seed=1),
        Sampling(1, seed=2, top_p=0.7),
        Sampling(1, seed=3, temperature=2, logit_bias={5: 4.0}),
        Sampling(1, seed=1),
    ]
    together = choose_tokens(logits, samplings, [Draws(s.seed, 0) for s in samplings])
    alone = [
        choose_tokens(logits[i : i + 1], [s], [Draws(s.seed, 0)])[0]
        for i, s in enumerate(samplings)
    ]
    assert together == alone


def test_draws_differ_by_seed_and_by_sample() -> None:
    numbers = {Draws(seed, sample).next() for seed in (-1, 0, 1, 2**63) for sample in range(4)}
    assert len(numbers) == 16
    assert all(0 <= number < 1 for number in numbers)
    assert Draws(7, 3).next() == Draws(7, 3).next()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 1.5},
        {"logit_bias": {0: 101}},
        {"stop": ("",)},
        {"n": 0},
        {"top": 21},
        {"frequency_penalty": 2.1},
        {"presence_penalty": -2.1},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: .* out of range"):
        Sampling(**{"max_tokens": 1, **wrong})
