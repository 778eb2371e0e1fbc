import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaarel_bet import estimates
from kaarel_bet.estimates import (
    Estimate,
    Floats,
    Sample,
    bootstrap,
    crossed_bootstrap,
    leave_one_out,
    without_sampling,
)


def exact(values: list[float] | Floats) -> Sample:
    array = np.asarray(values, dtype=np.float64)
    return Sample(low=array, high=array)


def mean(values: Floats) -> Floats:
    return values.mean(axis=-1)


def least(values: Floats) -> Floats:
    return values.min(axis=-1)


def ratio_of_means(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(mean(numerator), mean(denominator))


def bootstrap_mean(sample: Sample, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    return bootstrap(mean, (sample,), increasing=(True,), confidence=confidence, seed=seed)


def test_the_interval_contains_the_true_mean_as_often_as_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimates, "RESAMPLES", 1_000)
    simulated = np.random.default_rng(1).normal(3.0, 1.0, size=(300, 40))
    found = [bootstrap_mean(exact(v), confidence=0.9, seed=i) for i, v in enumerate(simulated)]
    coverage = np.mean([estimate.low <= 3.0 <= estimate.high for estimate in found])
    # 0.9 less what the percentile method lacks at 40 names (about 0.01), and 3 standard errors.
    assert 0.84 <= coverage <= 0.95


def test_the_interval_of_a_mean_is_about_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, size=100)
    estimate = bootstrap_mean(exact(values))
    half = 1.96 * values.std(ddof=0) / math.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.03)


def test_more_confidence_gives_a_wider_interval() -> None:
    sample = exact(np.random.default_rng(3).normal(size=30))
    narrow, wide = (bootstrap_mean(sample, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_seed_alone_decides_the_interval() -> None:
    sample = exact(np.random.default_rng(4).normal(size=30))
    assert bootstrap_mean(sample, seed=7) == bootstrap_mean(sample, seed=7)
    assert bootstrap_mean(sample, seed=7).low != bootstrap_mean(sample, seed=8).low


def test_names_that_are_all_alike_leave_no_uncertainty() -> None:
    assert bootstrap_mean(exact([0.25] * 10)) == Estimate(0.25, 0.25, 0.25)


def test_unknown_values_widen_the_interval_to_either_side() -> None:
    known = np.random.default_rng(5).uniform(0.2, 0.4, size=30)
    unsure = Sample(low=known - 0.1, high=known + 0.2)
    estimate, certain = bootstrap_mean(unsure), bootstrap_mean(exact(known))
    # The same names are drawn, so the ends move by exactly as much as the values.
    assert estimate.low == pytest.approx(certain.low - 0.1)
    assert estimate.high == pytest.approx(certain.high + 0.2)
    assert estimate.value == pytest.approx(known.mean() + 0.05)


def test_a_denominator_counts_the_other_way_round() -> None:
    one = exact([1.0] * 5)
    unsure = Sample(low=np.full(5, 0.1), high=np.full(5, 0.5))
    estimate = bootstrap(
        ratio_of_means, (one, unsure), increasing=(True, False), confidence=0.95, seed=0
    )
    assert (estimate.low, estimate.high) == (pytest.approx(2.0), pytest.approx(10.0))
    assert estimate.value == pytest.approx(1 / 0.3)


def test_paired_names_stay_paired() -> None:
    values = np.random.default_rng(6).uniform(1.0, 100.0, size=20)
    estimate = bootstrap(
        ratio_of_means,
        (exact(values * 3), exact(values)),
        increasing=(True, False),
        confidence=0.95,
        seed=0,
    )
    assert (estimate.low, estimate.high) == (pytest.approx(3.0), pytest.approx(3.0))


def test_a_ratio_to_nothing_is_infinite() -> None:
    estimate = bootstrap(
        ratio_of_means,
        (exact([0.5] * 4), exact([0.0] * 4)),
        increasing=(True, False),
        confidence=0.95,
        seed=0,
    )
    assert estimate == Estimate(math.inf, math.inf, math.inf)


def test_an_interval_may_end_in_infinity_but_not_in_nan() -> None:
    # With 4 names, all zeros are drawn in (3/4) ** 4 = 32 % of resamples.
    estimate = bootstrap(
        ratio_of_means,
        (exact([0.5] * 4), exact([0.0, 0.0, 0.0, 0.1])),
        increasing=(True, False),
        confidence=0.95,
        seed=0,
    )
    assert estimate.high == math.inf
    assert 5.0 <= estimate.low < estimate.value == pytest.approx(20.0)


def test_an_interval_is_drawn_from_the_resamples_themselves() -> None:
    # No interpolation: the mean of one or two coins is 0, 1/2 or 1.
    estimate = bootstrap_mean(exact([0.0, 1.0]))
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_leaving_one_out_is_about_what_the_others_alone_say() -> None:
    values = np.random.default_rng(7).lognormal(size=25)
    found = leave_one_out(mean, (exact(values),), increasing=(True,), confidence=0.9, seed=0)
    assert len(found) == len(values)
    for i, estimate in enumerate(found):
        alone = bootstrap_mean(exact(np.delete(values, i)), confidence=0.9)
        assert estimate.value == pytest.approx(alone.value)
        assert estimate.low == pytest.approx(alone.low, rel=0.05)
        assert estimate.high == pytest.approx(alone.high, rel=0.05)


def test_without_sampling_exact_values_leave_no_uncertainty() -> None:
    estimate = without_sampling(least, (exact([0.3, 0.1, 0.2]),), increasing=(True,))
    assert estimate == Estimate(0.1, 0.1, 0.1)


def test_without_sampling_only_the_values_own_intervals_count() -> None:
    sample = Sample(low=np.array([0.1, 0.2]), high=np.array([0.5, 0.3]))
    estimate = without_sampling(least, (sample,), increasing=(True,))
    assert (estimate.low, estimate.high) == (0.1, 0.3)
    assert estimate.value == pytest.approx(0.25)


def test_without_sampling_a_denominator_counts_the_other_way_round() -> None:
    unsure = Sample(low=np.array([0.0]), high=np.array([0.5]))
    estimate = without_sampling(ratio_of_means, (exact([1.0]), unsure), increasing=(True, False))
    assert estimate == Estimate(4.0, 2.0, math.inf)


_INTERVALS = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=1, max_size=12
)


@given(_INTERVALS)
def test_the_value_lies_in_the_interval_without_sampling(intervals: list[list[float]]) -> None:
    low, high = np.array(intervals).T
    estimate = without_sampling(least, (Sample(low, high),), increasing=(True,))
    assert estimate.low <= estimate.value <= estimate.high


def test_the_crossed_interval_has_both_sources_of_variance() -> None:
    """By simulation: items and replicates that differ, each alone and together."""
    generator = np.random.default_rng(0)

    def width(by_item: float, by_replicate: float) -> float:
        of_items = by_item * generator.normal(size=(1, 60))
        of_replicates = by_replicate * generator.normal(size=(8, 1))
        means = np.asarray(0.5 + of_items + of_replicates, dtype=np.float64)
        found = crossed_bootstrap(
            lambda mean: mean, (Sample(means, means),), confidence=0.95, seed=0
        )
        assert found.low < found.value < found.high
        return found.high - found.low

    items, replicates, both = width(0.1, 0), width(0, 0.1), width(0.1, 0.1)
    assert items == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(60), rel=0.3)
    assert replicates == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(8), rel=0.5)
    assert both > max(items, replicates) * 0.9


def test_crossed_samples_of_the_same_items_stay_paired() -> None:
    hard = np.random.default_rng(0).random((1, 40)) < 0.5
    one = Sample(hard.astype(np.float64), hard.astype(np.float64))
    found = crossed_bootstrap(lambda a, b: a - b, (one, one), confidence=0.95, seed=0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_crossed_samples_that_are_intervals_widen_it_both_ways() -> None:
    exact = Sample(np.ones((2, 30)), np.ones((2, 30)))
    unsure = Sample(np.zeros((2, 30)), np.ones((2, 30)))
    found = crossed_bootstrap(lambda a, b: a - b, (unsure, exact), confidence=0.95, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((-0.5, -1, 0))
    found = crossed_bootstrap(lambda a, b: a - b, (exact, unsure), confidence=0.95, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0, 1))
