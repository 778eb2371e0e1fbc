"""Shares of successes: intervals, tests, and whether answers are as often right as they are sure. Pure."""

from collections.abc import Sequence

import numpy as np

from kaarel_bet.estimates import Estimate, Floats


def wilson(successes: int, n: int, confidence: float) -> Estimate:
    """A share with its score interval (Wilson 1927, J. Am. Stat. Assoc. 22)."""
    from scipy import stats  # half a second that a finished run need not wait for

    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    share = successes / n
    # Rounding must not put the share outside.
    return Estimate(share, min(share, float(found.low)), max(share, float(found.high)))


def mcnemar(only_one: int, only_other: int) -> float:
    """The two-sided exact p-value that two answerers of the same items are equally often right.

    Counts the items that only one of them has right (McNemar 1947, by the binomial distribution).
    """
    from scipy import stats

    n = only_one + only_other
    return float(stats.binomtest(only_one, n).pvalue) if n else 1.0


def brier(probabilities: Sequence[Floats], answers: Sequence[int]) -> float:
    """Mean over items of the squared error summed over classes, 0 to 2 (Brier 1950)."""
    pairs = zip(probabilities, answers, strict=True)
    return float(np.mean([((given - np.eye(len(given))[a]) ** 2).sum() for given, a in pairs]))


def expected_calibration_error(probabilities: Sequence[Floats], answers: Sequence[int]) -> float:
    """Mean distance of accuracy from confidence, in ten bins of equal width (Guo et al. 2017)."""
    confidence = np.array([given.max() for given in probabilities])
    right = np.array([given.argmax() == a for given, a in zip(probabilities, answers, strict=True)])
    bins = np.minimum((10 * confidence).astype(int), 9)
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(bins))


def percent(share: float) -> str:
    """A share in percent, as tables have it."""
    return f"{100 * share:.1f}"


def percent_interval(share: Estimate) -> str:
    """A share's interval in percent."""
    return f"{percent(share.low)} to {percent(share.high)}"
