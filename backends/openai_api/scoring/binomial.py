"""Confidence intervals of a proportion."""

import math
from collections.abc import Callable


def clopper_pearson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """The exact interval (Clopper and Pearson 1934, Biometrika 26:404-413) of `hits` out of `n`.

    Covers the true proportion with at least `confidence`, whatever it is.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: _at_least(hits, n, p) < tail)
    high = 1.0 if hits == n else _solve(lambda p: 1 - _at_least(hits + 1, n, p) > tail)
    return low, high


def _at_least(hits: int, n: int, p: float) -> float:
    """The probability of `hits` or more in `n` draws of probability `p`, 0 < p < 1."""
    return math.fsum(
        math.exp(_log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p))
        for k in range(hits, n + 1)
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _solve(below: Callable[[float], bool]) -> float:
    """Where `below` turns from true to false in (0, 1), by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
