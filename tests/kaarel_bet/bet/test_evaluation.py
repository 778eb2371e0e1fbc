"""Estimates of expressions: values, intervals and what they know of, by simulation and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import SettingsError
from kaarel_bet import estimates
from kaarel_bet.bet.expressions import parse_number
from kaarel_bet.estimates import Estimate
from kaarel_bet.proportions import paired_difference, wilson
from tests.kaarel_bet.bet.evidence import Evidence, Values


def estimate(evidence: Evidence, text: str, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    node = parse_number(text, evidence.vocabulary)
    return evidence.evaluator(seed).bootstrap(node, confidence)


def analytic(evidence: Evidence, text: str) -> Estimate:
    return evidence.evaluator().analytic(parse_number(text, evidence.vocabulary), 0.95)


def mean_of(values: Values, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    evidence = Evidence().add("loss", "a", values, question="hard")
    return estimate(evidence, "mean(loss(hard, a))", confidence=confidence, seed=seed)


def test_the_interval_contains_the_true_mean_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimates, "RESAMPLES", 1_000)
    simulated = np.random.default_rng(1).normal(3.0, 1.0, size=(300, 40))
    found = [mean_of(values, confidence=0.9, seed=i) for i, values in enumerate(simulated)]
    coverage = np.mean([one.low <= 3.0 <= one.high for one in found])
    # 0.9 less what the percentile method lacks at 40 rows (about 0.01), and 3 standard errors.
    assert 0.84 <= coverage <= 0.95


def test_the_interval_of_a_mean_is_about_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, size=100)
    found = mean_of(values)
    half = 1.96 * values.std(ddof=0) / math.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_more_confidence_gives_a_wider_interval() -> None:
    values = np.random.default_rng(3).normal(size=30)
    narrow, wide = (mean_of(values, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_seed_alone_decides_the_interval() -> None:
    values = np.random.default_rng(4).normal(size=30)
    assert mean_of(values, seed=7) == mean_of(values, seed=7)
    assert mean_of(values, seed=7).low != mean_of(values, seed=8).low


def test_unknown_values_widen_the_interval_to_either_side() -> None:
    known = np.random.default_rng(5).uniform(0.2, 0.4, size=30)
    unsure = Evidence().add("acc", "a", known - 0.1, known + 0.2)
    found, certain = (
        estimate(evidence, "mean(acc(q, a))")
        for evidence in (unsure, Evidence().add("acc", "a", known))
    )
    # The same rows are drawn, so the ends move by exactly as much as the values.
    assert found.low == pytest.approx(certain.low - 0.1)
    assert found.high == pytest.approx(certain.high + 0.2)
    assert found.value == pytest.approx(known.mean() + 0.05)


def ratio(numerator: Values, denominator: Values, high: Values | None = None) -> Estimate:
    evidence = Evidence().add("P", "a", numerator, candidate="yes")
    evidence.add("P", "a", denominator, high, candidate="no")
    return estimate(evidence, "mean(P(yes | q, a)) / mean(P(no | q, a))")


def test_a_denominator_counts_the_other_way_round() -> None:
    found = ratio([1.0] * 5, [0.1] * 5, [0.5] * 5)
    assert (found.low, found.high) == (pytest.approx(2.0), pytest.approx(10.0))
    assert found.value == pytest.approx(1 / 0.3)


def test_paired_rows_stay_paired() -> None:
    values = np.random.default_rng(6).uniform(0.01, 0.3, size=20)
    found = ratio(values * 3, values)
    assert (found.low, found.high) == (pytest.approx(3.0), pytest.approx(3.0))


def test_a_ratio_to_nothing_is_infinite_and_never_nan_in_part() -> None:
    assert ratio([0.5] * 4, [0.0] * 4) == Estimate(math.inf, math.inf, math.inf)
    # With 4 rows, all zeros are drawn in (3/4) ** 4 = 32 % of resamples.
    found = ratio([0.5] * 4, [0.0, 0.0, 0.0, 0.1])
    assert found.high == math.inf
    assert 5.0 <= found.low < found.value == pytest.approx(20.0)


def test_medians_are_those_of_the_rows_and_their_intervals_drawn_from_them() -> None:
    values = np.random.default_rng(8).uniform(0, 1, size=(3, 21))
    found = estimate(Evidence().add("acc", "a", values), "median(acc(q, a))")
    assert found.value == pytest.approx(np.median(values))
    even = estimate(Evidence().add("acc", "a", [0.1, 0.2, 0.6, 0.9]), "median(acc(q, a))")
    assert even.value == pytest.approx(0.4)
    assert even.low >= 0.1
    assert even.high <= 0.9


def test_shares_count_rows_and_leave_open_what_intervals_leave_open() -> None:
    evidence = Evidence().add("P", "a", [0.9, 0.2, 0.4, 0.1], [0.9, 0.2, 0.7, 0.1], candidate="yes")
    evidence.add("P", "a", [0.5] * 4, candidate="no")
    node = parse_number("share(P(yes | q, a) > P(no | q, a))", evidence.vocabulary)
    assert evidence.evaluator().bounds(node) == (0.25, 0.5)


def test_the_least_is_about_just_these_rows() -> None:
    evidence = Evidence().add("acc", "a", [0.1, 0.2], [0.5, 0.3])
    found = estimate(evidence, "least(acc(q, a))")
    assert (found.low, found.high) == (0.1, 0.3)
    assert found.value == pytest.approx(0.25)


def test_the_geometric_mean_of_probabilities() -> None:
    evidence = Evidence().add("P", "a", [1e-8, 1e-2], candidate="yes")
    found = estimate(evidence, "geometric_mean(P(yes | q, a))")
    assert found.value == pytest.approx(1e-5)
    assert (found.low, found.high) == (pytest.approx(1e-8), pytest.approx(1e-2))


def test_unbounded_log_probabilities_leave_one_end_open() -> None:
    low = np.full(10, -2.0)
    low[3] = -np.inf
    evidence = Evidence().add("logP", "a", low, np.full(10, -1.0), candidate="yes")
    found = estimate(evidence, "mean(logP(yes | q, a))")
    assert found.low == -math.inf
    assert found.high == pytest.approx(-1.0)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=1, max_size=12),
    st.sampled_from(["mean", "median", "least", "greatest", "geometric_mean"]),
)
def test_the_value_lies_within_its_bounds(intervals: list[list[float]], aggregate: str) -> None:
    low, high = np.array(intervals).T
    evidence = Evidence().add("acc", "a", low, high)
    node = parse_number(f"{aggregate}(acc(q, a))", evidence.vocabulary)
    least, most = evidence.evaluator().bounds(node)
    assert least - 1e-12 <= evidence.evaluator().value(node) <= most + 1e-12


def test_the_interval_has_both_sources_of_variance() -> None:
    """By simulation: rows and trainings that differ, each alone and together."""
    generator = np.random.default_rng(0)

    def width(by_row: float, by_training: float) -> float:
        of_rows = by_row * generator.normal(size=(1, 60))
        of_trainings = by_training * generator.normal(size=(8, 1))
        found = mean_of(np.asarray(0.5 + of_rows + of_trainings, dtype=np.float64))
        assert found.low < found.value < found.high
        return found.high - found.low

    rows, trainings, both = width(0.1, 0), width(0, 0.1), width(0.1, 0.1)
    assert rows == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(60), rel=0.3)
    assert trainings == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(8), rel=0.5)
    assert both > max(rows, trainings) * 0.9


def test_rows_of_a_cluster_come_together() -> None:
    """Ten copies of each of eight values are as uncertain as the eight values."""
    eight = np.random.default_rng(9).uniform(0, 1, size=8)
    copies = {row: f"cluster {row // 10}" for row in range(80)}
    clustered = Evidence().add("acc", "a", np.repeat(eight, 10), clusters=copies)
    alone = Evidence().add("acc", "a", eight)
    found, expected = (estimate(evidence, "mean(acc(q, a))") for evidence in (clustered, alone))
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


def test_arms_are_compared_on_the_same_rows() -> None:
    hard = (np.random.default_rng(0).random(40) < 0.5).astype(np.float64)
    evidence = Evidence().add("acc", "a", hard).add("acc", "b", hard)
    found = estimate(evidence, "mean(acc(q, a)) - mean(acc(q, b))")
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_gains_are_shares_of_what_is_left() -> None:
    evidence = Evidence().add("acc", "a", [1.0, 1.0, 1.0, 0.0]).add("acc", "base", [1, 0, 1, 0])
    found = estimate(evidence, "gain(acc(q, a), acc(q, base))")
    assert found.value == pytest.approx(0.5)
    unsure = Evidence().add("acc", "a", [0.5] * 4, [0.75] * 4).add("acc", "base", [0.5] * 4)
    found = estimate(unsure, "gain(acc(q, a), acc(q, base))")
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(0.5))


def test_the_lead_is_over_the_better_prompt() -> None:
    evidence = Evidence().add("acc", "a", [1.0, 1.0, 1.0, 1.0]).add("acc", "base", [0.5] * 4)
    evidence.add("acc", "base", [0.25] * 4, question="few.shots")
    found = estimate(evidence, "lead(acc(q, a), acc(few.shots, base), acc(q, base))")
    assert found.value == pytest.approx(1.0)


def test_where_nothing_is_left_to_gain_a_gain_is_still_a_number() -> None:
    evidence = Evidence().add("acc", "a", [1.0] * 4).add("acc", "base", [1.0] * 4)
    assert estimate(evidence, "gain(acc(q, a), acc(q, base))") == Estimate(0, 0, 0)


def test_a_different_number_of_trainings_is_paired_only_with_a_single_one() -> None:
    evidence = Evidence().add("acc", "a", np.ones((3, 4))).add("acc", "base", [0.5] * 4)
    assert estimate(evidence, "mean(acc(q, a) - acc(q, base))").value == pytest.approx(0.5)
    evidence.add("acc", "b", np.ones((2, 4)))
    with pytest.raises(SettingsError, match="2 and 3 trainings"):
        estimate(evidence, "mean(acc(q, a) - acc(q, b))")


def test_analytic_intervals_are_the_named_ones() -> None:
    a, b = np.array([1.0, 1, 0, 1, 0, 1]), np.array([0.0, 1, 0, 0, 0, 1])
    evidence = Evidence().add("acc", "a", a).add("acc", "b", b)
    assert analytic(evidence, "mean(acc(q, a))") == wilson(4, 6, 0.95)
    found = analytic(evidence, "mean(acc(q, a)) - mean(acc(q, b))")
    expected = paired_difference(a - b, 0.95)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found.value == pytest.approx(expected.value)


def test_analytic_intervals_of_losses_are_students() -> None:
    values = np.array([1.0, 2.0, 4.0, 3.0])
    found = analytic(Evidence().add("loss", "a", values, question="hard"), "mean(loss(hard, a))")
    half = 3.182 * values.std(ddof=1) / 2
    assert found.low == pytest.approx(2.5 - half, rel=0.04)
    assert found.high == pytest.approx(2.5 + half, rel=0.04)


def test_rows_of_different_tables_are_resampled_apart_whatever_they_are_called() -> None:
    hard = (np.random.default_rng(0).random(40) < 0.5).astype(np.float64)
    evidence = Evidence().add("acc", "a", hard).add("acc", "a", hard, question="elsewhere")
    found = estimate(evidence, "mean(acc(q, a)) - mean(acc(elsewhere, a))")
    assert found.value == 0
    assert found.low < -0.1
    assert found.high > 0.1


def test_analytic_intervals_are_over_clusters() -> None:
    eight = np.array([1.0, 0, 1, 1, 0, 1, 0, 1])
    copies = {row: f"cluster {row // 10}" for row in range(80)}
    clustered = Evidence().add("acc", "a", np.repeat(eight, 10), clusters=copies)
    found = analytic(clustered, "mean(acc(q, a))")
    alone = analytic(Evidence().add("acc", "a", eight), "mean(acc(q, a))")
    assert (found.low, found.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


@pytest.mark.parametrize(("right", "of", "level"), [(90, 100, 0.9), (6, 6, 1.0), (18, 20, 0.9)])
def test_a_share_is_the_number_that_it_is_written_as(right: int, of: int, level: float) -> None:
    evidence = Evidence().add("acc", "a", [1.0] * right + [0.0] * (of - right))
    node = parse_number("mean(acc(q, a))", evidence.vocabulary)
    assert evidence.evaluator().bounds(node) == (level, level)
