"""What an answer is worth, and what all of them together are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import open_backend
from backends.data import CandidateScore, LogProbability, ScoringResult
from backends.local.settings import LocalSettings
from kaarel_bet.experiments.inverse_scaling.calibration import brier, expected_calibration_error
from kaarel_bet.experiments.inverse_scaling.items import Item
from kaarel_bet.experiments.inverse_scaling.outcomes import chosen, correctness, probabilities
from kaarel_bet.experiments.inverse_scaling.prompts import query
from kaarel_bet.experiments.inverse_scaling.settings import Metric
from kaarel_bet.experiments.inverse_scaling.shortcuts import SHORTCUTS, shortcut_answers


def item(*classes: str, answer: int = 0, group: str = "g", prompt: str = "A:") -> Item:
    return Item(id="i", part="test", group=group, prompt=prompt, classes=classes, answer=answer)


def result(*ends: tuple[float, float]) -> ScoringResult:
    logs = [LogProbability(low=low, high=high) for low, high in ends]
    candidates = {
        str(i): CandidateScore(total=log, first_token=log, n_tokens=1) for i, log in enumerate(logs)
    }
    return ScoringResult(id="i", candidates=candidates, method="exact")


def exact(*totals: float) -> ScoringResult:
    return result(*((total, total) for total in totals))


@pytest.mark.parametrize(
    ("metric", "totals", "answer", "right"),
    [
        ("acc", (-1.0, -2.0), 0, 1.0),
        ("acc", (-1.0, -2.0), 1, 0.0),
        ("acc", (-1.0, -1.0), 0, 1.0),  # of equals the first
        ("acc", (-1.0, -1.0), 1, 0.0),
        # " a" has two characters, its space included, " bcd" four: -0.5 against -0.3 each
        ("acc_norm", (-1.0, -1.2), 1, 1.0),
        ("acc_norm", (-1.0, -1.2), 0, 0.0),
        ("acc_norm", (-1.0, -2.0), 0, 1.0),
    ],
)
def test_accuracies_are_lm_evaluation_harnesss(
    metric: Metric, totals: tuple[float, float], answer: int, right: float
) -> None:
    asked = item(" a", " bcd", answer=answer)
    assert correctness(exact(*totals), asked, metric) == (right, right)


_END = st.sampled_from([-np.inf, -3.0, -2.0, -1.0, -0.5])


@given(ends=st.lists(st.tuples(_END, _END, st.booleans()), min_size=2, max_size=4), data=st.data())
def test_wherever_log_probabilities_lie_in_their_intervals_correctness_covers_it(
    ends: list[tuple[float, float, bool]], data: st.DataObject
) -> None:
    asked = item(*("abcd"[: len(ends)]), answer=data.draw(st.integers(0, len(ends) - 1)))
    low, high = correctness(result(*((min(a, b), max(a, b)) for a, b, _ in ends)), asked, "acc")
    inside = [a if first else b for a, b, first in ends]
    assert low <= float(np.argmax(inside) == asked.answer) <= high
    if all(a == b for a, b, _ in ends):
        assert low == high


def test_an_open_argmax_is_neither_right_nor_wrong() -> None:
    assert correctness(result((-3, -1), (-2, -2)), item("a", "b"), "acc") == (0.0, 1.0)
    assert correctness(result((-1.5, -1), (-2, -2)), item("a", "b"), "acc") == (1.0, 1.0)
    assert correctness(result((-5, -4), (-2, -2)), item("a", "b"), "acc") == (0.0, 0.0)


def test_choices_that_share_a_first_token_score_apart(tiny_model: Path) -> None:
    """The original's fault: it compared first tokens, which " 1" and " 4" have in common."""
    asked = item(" 1", " 4", prompt="Q: What is the first digit of 42? A:")
    settings = LocalSettings.model_validate({"model": str(tiny_model), "device": "cpu"})
    backend = open_backend("local", settings)
    (answer,) = backend.score(backend.base_model, [query(asked, "text")])
    one, four = (answer.candidates[label] for label in ("0", "1"))
    assert one.first_token == four.first_token
    assert one.n_tokens == four.n_tokens == 2
    assert one.total != four.total
    better = 0 if one.total.low > four.total.low else 1
    assert chosen(answer, asked, "acc") == better
    likelier = asked.model_copy(update={"answer": better})
    assert correctness(answer, likelier, "acc") == (1.0, 1.0)


def test_probabilities_are_of_the_classes_alone() -> None:
    given_classes = probabilities(exact(-1001.0, -1001.0 + np.log(3)), item("a", "b"))
    assert given_classes == pytest.approx([0.25, 0.75])
    assert probabilities(exact(-np.inf, -np.inf), item("a", "b")) == pytest.approx([0.5, 0.5])


def test_brier_and_calibration_error() -> None:
    sure, unsure = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    assert brier([sure], [0]) == pytest.approx(0.02)
    assert brier([sure, unsure], [1, 0]) == pytest.approx((1.62 + 0.5) / 2)
    assert expected_calibration_error([sure] * 10, [0] * 9 + [1]) == pytest.approx(0)
    assert expected_calibration_error([sure] * 10, [1] * 10) == pytest.approx(0.9)
    # Two bins, each of half the items: |1 - 0.5| and |0 - 0.9|
    assert expected_calibration_error([unsure, sure], [0, 1]) == pytest.approx(0.7)


def test_never_3_for_pi_is_found_without_a_model() -> None:
    key = SHORTCUTS["the class text that is right most often in the template"]
    train = [item(" 3", " 7", answer=1, group="π")] * 3 + [
        item(" 3", " 1", answer=0, group="÷")
    ] * 3
    test = [
        item(" 3", " 9", answer=1, group="π"),
        item(" 8", " 3", answer=0, group="π"),
        item(" 3", " 9", answer=0, group="÷"),
        item(" 3", " 9", answer=0, group="π"),
    ]
    assert shortcut_answers(key, train, test) == [True, True, True, False]


def test_shortcuts_know_the_training_rows_alone() -> None:
    train = [item("a", "b", answer=1)] * 2
    test = [item("b", "a", answer=0), item("c", "d", answer=1)]
    place, text, _ = SHORTCUTS.values()
    assert shortcut_answers(place, train, test) == [False, True]
    assert shortcut_answers(text, train, test) == [True, False]  # of equals the first
