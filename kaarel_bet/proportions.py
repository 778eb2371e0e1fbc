"""Shares of successes: intervals, tests, and whether answers are as often right as they are sure. Pure."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from kaarel_bet.estimates import Estimate, Floats


def wilson(successes: float, n: int, confidence: float) -> Estimate:
    """A share with its score interval (Wilson 1927, J. Am. Stat. Assoc. 22)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not put the share outside.
    return Estimate(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def mcnemar(only_one: int, only_other: int) -> float:
    """The two-sided exact p-value that two answerers of the same items are equally often right.

    Counts the items that only one of them has right (McNemar 1947, by the binomial distribution).
    """
    n = only_one + only_other
    tail = sum(math.comb(n, k) for k in range(min(only_one, only_other) + 1))
    return min(1.0, 2 * tail / 2**n)


def paired_difference(differences: Floats, confidence: float) -> Estimate:
    """The mean of paired differences, each from -1 to 1, with an interval that few pairs don't deceive.

    For differences of successes it is the adjusted Wald interval of Bonett & Price (2012, J. Educ. Behav.
    Stat. 37): as if there were one more pair of each sign, so that pairs that never differ don't give
    an interval without width. The value is that of the pairs alone.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    adjusted = np.append(differences, [1.0, -1.0])
    centre, half = adjusted.mean(), z * adjusted.std() / math.sqrt(len(adjusted))
    value = float(differences.mean())
    low, high = max(-1.0, float(centre - half)), min(1.0, float(centre + half))
    return Estimate(value, min(value, low), max(value, high))


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
