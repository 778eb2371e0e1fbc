"""Estimates of expressions: values, intervals and what they know of, by simulation and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from backends.errors import SettingsError
from kaarel_bet import estimates
from kaarel_bet.bet.evaluation import Evaluator
from kaarel_bet.bet.expressions import parse_number
from kaarel_bet.bet.observations import Observation, Observations
from kaarel_bet.estimates import Estimate
from tests.kaarel_bet.bet.evidence import Evidence, Values


def estimate(evidence: Evidence, text: str, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    node = parse_number(text, evidence.vocabulary)
    return evidence.evaluator(seed).bootstrap(node, (1 - confidence) / 2)


def student(evidence: Evidence, text: str) -> Estimate:
    return evidence.evaluator().student(parse_number(text, evidence.vocabulary), 0.025)


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


def test_medians_are_those_of_every_training_and_their_intervals_drawn_from_them() -> None:
    values = np.random.default_rng(8).uniform(0, 1, size=(3, 21))
    found = estimate(Evidence().add("acc", "a", values), "median(acc(q, a))")
    assert found.value == pytest.approx(np.median(values, axis=1).mean())
    even = estimate(Evidence().add("acc", "a", [0.1, 0.2, 0.6, 0.9]), "median(acc(q, a))")
    assert even.value == pytest.approx(0.4)
    assert even.low >= 0.1
    assert even.high <= 0.9


def test_medians_of_probabilities_are_averaged_on_their_logarithms() -> None:
    evidence = Evidence().add("P", "a", [[1e-6] * 3, [1e-2] * 3], candidate="yes")
    assert estimate(evidence, "median(P(yes | q, a))").value == pytest.approx(1e-4)


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


# --- Student's t over rows and trainings -------------------------------------------------------------


def t(p: float, degrees: int) -> float:
    return float(stats.t.ppf(p, degrees))


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([1.0, 2.0, 4.0, 3.0])
    found = student(Evidence().add("loss", "a", values, question="hard"), "mean(loss(hard, a))")
    half = t(0.975, 3) * values.std(ddof=1) / 2
    assert (found.low, found.high) == (pytest.approx(2.5 - half), pytest.approx(2.5 + half))


def test_rows_and_trainings_each_have_their_own_t() -> None:
    values = np.random.default_rng(0).normal(3, 1, size=(4, 1)) + np.arange(6) / 10
    found = student(Evidence().add("loss", "a", values, question="hard"), "mean(loss(hard, a))")
    of_rows = t(0.975, 5) * values.mean(axis=0).std(ddof=1) / math.sqrt(6)
    of_runs = t(0.975, 3) * values.mean(axis=1).std(ddof=1) / math.sqrt(4)
    assert found.high - found.value == pytest.approx(math.hypot(of_rows, of_runs))
    assert found.value - found.low == pytest.approx(math.hypot(of_rows, of_runs))


def test_a_share_has_agresti_and_coulls_interval_that_is_never_without_width() -> None:
    for right in (5, 10):
        coins = np.array([1.0] * right + [0.0] * (10 - right))
        found = student(Evidence().add("acc", "a", coins), "mean(acc(q, a))")
        centre = (right + 2) / 14
        half = t(0.975, 13) * math.sqrt(centre * (1 - centre) / 13)
        assert found.value == right / 10
        assert found.low == pytest.approx(centre - half)
        assert found.high == pytest.approx(min(1.0, centre + half))


def test_a_difference_of_shares_has_bonett_and_prices_interval() -> None:
    a, b = np.array([1.0, 1, 0, 1, 0, 1]), np.array([0.0, 1, 0, 0, 0, 1])
    evidence = Evidence().add("acc", "a", a).add("acc", "b", b)
    adjusted = np.append(a - b, [1.0, -1.0])
    half = t(0.975, 7) * adjusted.std(ddof=1) / math.sqrt(8)
    for text in ("mean(acc(q, a)) - mean(acc(q, b))", "mean(acc(q, a) - acc(q, b))"):
        found = student(evidence, text)
        assert found.value == pytest.approx((a - b).mean())
        assert found.low == pytest.approx(adjusted.mean() - half)
        assert found.high == pytest.approx(adjusted.mean() + half)


def test_probabilities_and_their_ratios_are_judged_on_their_logarithms() -> None:
    logs = np.array([[-9.0, -8.0, -7.0]]).T + np.zeros((3, 4))
    evidence = Evidence().add("logP", "a", logs, candidate="yes")
    evidence.add("logP", "a", np.zeros_like(logs), candidate="no")
    half = t(0.975, 2) / math.sqrt(3)
    for text in ("median(P(yes | q, a))", "median(P(yes | q, a)) / median(P(no | q, a))"):
        found = student(evidence, text)
        assert found.value == pytest.approx(math.exp(-8))
        assert math.log(found.low) == pytest.approx(-8 - half)
        assert math.log(found.high) == pytest.approx(min(-8 + half, math.inf))


def test_a_lead_knows_how_uncertain_either_prompt_is() -> None:
    rng = np.random.default_rng(0)
    coins = (rng.random((5, 60)) < 0.75).astype(np.float64)
    shots = (rng.random((5, 60)) < np.array([[0.2], [0.3], [0.45], [0.55], [0.6]])).astype(
        np.float64
    )
    evidence = Evidence().add("acc", "a", coins).add("acc", "base", [1.0, 0.0] * 30)
    evidence.add("acc", "base", shots, question="few.shots")
    found = student(evidence, "lead(acc(q, a), acc(few.shots, base), acc(q, base))")
    alone = student(evidence, "gain(acc(q, a), acc(q, base))")
    assert found.value == pytest.approx(alone.value)  # zero-shot is the better on the average
    assert found.low < alone.low - 0.03  # but few-shot prompting may be
    assert found.high <= alone.high + 1e-9


def test_of_one_question_the_trainings_are_what_varies() -> None:
    evidence = Evidence().add("acc", "a", [[1.0], [1.0], [1.0], [0.0]])
    alone = Evidence().add("acc", "a", [1.0, 1.0, 1.0, 0.0])
    found, expected = (student(one, "mean(acc(q, a))") for one in (evidence, alone))
    assert (found.low, found.high) == (expected.low, expected.high)


def test_what_nothing_tells_the_variance_of_is_open_as_far_as_it_can_be() -> None:
    found = student(Evidence().add("acc", "a", [[0.5]]), "2 * mean(acc(q, a))")
    assert (found.value, found.low, found.high) == (1.0, 0.0, 2.0)


def test_a_probability_of_nothing_is_surely_small() -> None:
    found = student(
        Evidence().add("P", "a", np.zeros((3, 5)), candidate="yes"), "median(P(yes | q, a))"
    )
    assert found.value == 0
    assert found.high < 1e-100


def test_of_very_many_rows_groups_are_left_out_and_the_weightiest_rows() -> None:
    values = np.random.default_rng(0).normal(2, 1, size=1000)
    values[17] = 500.0
    evidence = Evidence().add("loss", "a", values, question="hard")
    found = student(evidence, "mean(loss(hard, a))")
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    node = parse_number("mean(loss(hard, a))", evidence.vocabulary)
    left_out = dict.fromkeys(
        n for n, *_ in evidence.evaluator().without_each(node, 0.025, bootstrap=False)
    )
    assert next(iter(left_out)) == "row-17"
    assert len(left_out) == 200


def test_differences_of_small_probabilities_are_not_padded() -> None:
    rng = np.random.default_rng(0)
    evidence = Evidence().add("P", "a", 1e-4 * rng.uniform(1, 2, size=(3, 20)), candidate="yes")
    evidence.add("P", "a", 1e-5 * rng.uniform(1, 2, size=(3, 20)), candidate="no")
    found = student(evidence, "mean(P(yes | q, a)) - mean(P(no | q, a))")
    assert 1e-4 < found.low < found.value < found.high < 2e-4


def test_a_ratio_of_shares_is_padded() -> None:
    evidence = Evidence().add("acc", "a", np.ones((3, 20))).add("acc", "base", np.ones(20))
    found = student(evidence, "mean(acc(q, a)) / mean(acc(q, base))")
    assert found.low < 0.95 < found.value == 1 < 1.05 < found.high


def test_clusters_without_one_of_them() -> None:
    rows = np.array([1.0, 2.0, 4.0, 3.0])
    whole = Evidence().add("loss", "a", rows, question="hard")
    node = parse_number("mean(loss(hard, a))", whole.vocabulary)
    left_out = {
        name: ends for name, *ends in whole.evaluator().without_each(node, 0.025, bootstrap=False)
    }
    assert list(left_out) == ["row-0", "row-1", "row-2", "row-3"]
    rest = student(Evidence().add("loss", "a", rows[1:], question="hard"), "mean(loss(hard, a))")
    assert left_out["row-0"] == [pytest.approx(rest.low), pytest.approx(rest.high)]


def test_trainings_that_were_asked_rows_of_their_own_keep_their_clusters() -> None:
    """Three trainings on different rows of two clusters each: what a row has in common counts."""
    found = [
        Observation("a", run, "hard", 1, row, 1, row[0], "loss", "", value, value)
        for run, rows in enumerate((("x1", "y1"), ("x2", "y1", "y2"), ("x1", "y2")), start=1)
        for row, value in zip(rows, (1.0, 3.0, 4.0), strict=False)
    ]
    sample = Observations(found).sample("loss", "hard", "a")
    assert sample.clusters == ("x", "y", "x", "y")
    assert sample.asked is not None
    assert sample.asked.sum() == len(found)
    of = Evaluator(Observations(found), 0)
    node = parse_number("mean(loss(hard, a))", Evidence().vocabulary)
    assert of.value(node) == pytest.approx(np.mean([one.low for one in found]))
    assert of.student(node, 0.025).low < of.value(node)


def test_the_interval_of_a_median_covers_as_often_as_it_says() -> None:
    """Names and trainings drawn anew; benchmarks/coverage.py tries many such worlds."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        logs = -9 + 2 * rng.standard_normal(16) + rng.standard_normal((5, 1))
        found = student(Evidence().add("logP", "a", np.minimum(logs, 0), candidate="yes"),
                        "median(P(yes | q, a))")  # fmt: skip
        covered += math.log(found.low) <= -9 <= math.log(found.high)
    assert 178 <= covered <= 200  # 190 expected; a binomial's 0.02 % quantile is 178


def test_rows_of_different_tables_are_resampled_apart_whatever_they_are_called() -> None:
    hard = (np.random.default_rng(0).random(40) < 0.5).astype(np.float64)
    evidence = Evidence().add("acc", "a", hard).add("acc", "a", hard, question="elsewhere")
    for of in (estimate, student):
        found = of(evidence, "mean(acc(q, a)) - mean(acc(elsewhere, a))")
        assert found.value == 0
        assert found.low < -0.1
        assert found.high > 0.1


def test_students_intervals_are_over_clusters() -> None:
    eight = np.array([1.0, 3.0, 1.5, 1, 0, 2, 0, 1])
    copies = {row: f"cluster {row // 10}" for row in range(80)}
    clustered = Evidence().add("loss", "a", np.repeat(eight, 10), question="hard", clusters=copies)
    found = student(clustered, "mean(loss(hard, a))")
    alone = student(Evidence().add("loss", "a", eight, question="hard"), "mean(loss(hard, a))")
    assert (found.low, found.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


@pytest.mark.parametrize(("right", "of", "level"), [(90, 100, 0.9), (6, 6, 1.0), (18, 20, 0.9)])
def test_a_share_is_the_number_that_it_is_written_as(right: int, of: int, level: float) -> None:
    evidence = Evidence().add("acc", "a", [1.0] * right + [0.0] * (of - right))
    node = parse_number("mean(acc(q, a))", evidence.vocabulary)
    assert evidence.evaluator().bounds(node) == (level, level)


# --- agreement -----------------------------------------------------------------------------------------

_BOTH = "(acc(q, a) > 0.5, P(yes | q, a) > 0.5)"


def judged(
    one: Values,
    other: Values,
    high: Values | None = None,
    *,
    clusters: dict[int, str] | None = None,
) -> Evidence:
    found = Evidence().add("acc", "a", one, high, clusters=clusters)
    return found.add("P", "a", other, candidate="yes", clusters=clusters)


def test_agreement_and_what_is_beyond_chance() -> None:
    seen = judged([1, 1, 0, 0, 1], [1, 0, 0, 0, 1])
    assert student(seen, f"agreement{_BOTH}").value == pytest.approx(0.8)
    by_chance = 0.6 * 0.4 + 0.4 * 0.6
    kappa = student(seen, f"kappa{_BOTH}")
    assert kappa.value == pytest.approx((0.8 - by_chance) / (1 - by_chance))
    assert -1 <= kappa.low < kappa.value < kappa.high <= 1


def test_two_that_always_agree_are_not_sure_to() -> None:
    for of in ("agreement", "kappa"):
        found = student(judged([1, 0] * 10, [1, 0] * 10), f"{of}{_BOTH}")
        assert found.value == 1
        assert 0.4 < found.low < 0.99


def test_where_all_are_alike_nothing_is_beyond_chance() -> None:
    assert student(judged([1] * 9, [1] * 9), f"kappa{_BOTH}").value == 0


def test_what_is_left_open_may_agree_and_may_not() -> None:
    seen = judged([1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 1, 1])
    comparing = parse_number(f"agreement{_BOTH}", seen.vocabulary)
    assert Evaluator(seen.observations, 0).bounds(comparing) == (0.75, 1)
    kappa = Evaluator(seen.observations, 0).bounds(parse_number(f"kappa{_BOTH}", seen.vocabulary))
    assert kappa[0] <= 0.5 <= kappa[1] == 1  # either way of settling it lies within


def test_agreement_is_row_by_row_also_of_several_trainings_of_one_question() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, (3, 20)).astype(float)
    other = np.where(rng.random((3, 20)) < 0.2, 1 - one, one)
    seen = judged(one, other, clusters=dict.fromkeys(range(20), "all"))
    for of in ("agreement", "kappa"):
        found = student(seen, f"{of}{_BOTH}")
        assert found.low < found.value < 1
        assert found.high >= found.value
