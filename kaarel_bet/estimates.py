"""Estimates with their uncertainty: pure functions over arrays, one entry a name (or item)."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]
"""Takes arrays whose last axis is the names, returns arrays without it."""

RESAMPLES = 10_000
_CHUNK = 1_000


@dataclass(frozen=True)
class Estimate:
    """A value and the interval it lies in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """A quantity for every name, known to lie between `low` and `high`, both of shape (names,).

    For `crossed_bootstrap` of shape (replicates, items).
    """

    low: Floats
    high: Floats

    @property
    def middle(self) -> Floats:
        """The midpoints; the values themselves where they are exact."""
        return (self.low + self.high) / 2


def bootstrap(
    statistic: Statistic,
    samples: tuple[Sample, ...],
    *,
    increasing: tuple[bool, ...],
    confidence: float,
    seed: int,
) -> Estimate:
    """A statistic of samples over the same names, with a percentile bootstrap interval over names.

    The names are resampled together, so paired quantities stay paired (Efron & Tibshirani 1993,
    ch. 13). Where samples are intervals, the lower end is computed from whichever ends make the
    statistic small and the upper end from those that make it large: `increasing[i]` says whether
    the statistic grows with sample i.
    """
    tail = (1 - confidence) / 2
    resamples = _resample(statistic, samples, increasing, seed)
    return Estimate(
        value=float(statistic(*(sample.middle for sample in samples))),
        low=_quantile(resamples.lows, tail),
        high=_quantile(resamples.highs, 1 - tail),
    )


def crossed_bootstrap(
    statistic: Statistic, samples: tuple[Sample, ...], *, confidence: float, seed: int
) -> Estimate:
    """A statistic of samples' means, with an interval that has both their sources of variance.

    Samples are of shape (replicates, items) over the same items. Items are resampled together, and the
    replicates of each sample on their own (the pigeonhole bootstrap: Owen 2007, Ann. Appl. Stat. 1).
    `statistic` takes one array of means a sample and must be monotone in each of them: samples that are
    intervals count with whichever ends make it smallest and largest.
    """
    generator = np.random.default_rng(seed)
    lows, highs = [], []
    for _ in range(0, RESAMPLES, _CHUNK):
        weights = _weights(samples[0].low.shape[-1], generator)
        means = [_resampled_means(sample, weights, generator) for sample in samples]
        corners = np.stack([statistic(*corner) for corner in itertools.product(*means)])
        lows.append(corners.min(axis=0))
        highs.append(corners.max(axis=0))
    tail = (1 - confidence) / 2
    return Estimate(
        value=float(statistic(*(sample.middle.mean() for sample in samples))),
        low=_quantile(np.concatenate(lows), tail),
        high=_quantile(np.concatenate(highs), 1 - tail),
    )


def _resampled_means(
    sample: Sample, weights: Floats, generator: np.random.Generator
) -> tuple[Floats, ...]:
    """The means of a sample's ends, each (resamples,); one alone where the sample is exact."""
    drawn = _weights(sample.low.shape[0], generator)
    ends = (sample.low,) if np.array_equal(sample.low, sample.high) else (sample.low, sample.high)
    return tuple(((drawn @ end) * weights).sum(axis=1) for end in ends)


def _weights(n: int, generator: np.random.Generator) -> Floats:
    """The share of each of n things in resamples of them: (_CHUNK, n)."""
    drawn = generator.integers(n, size=(_CHUNK, n)) + n * np.arange(_CHUNK)[:, None]
    # Much faster than the generator's own multinomial counts.
    return np.bincount(drawn.ravel(), minlength=_CHUNK * n).reshape(_CHUNK, n) / n


def leave_one_out(
    statistic: Statistic,
    samples: tuple[Sample, ...],
    *,
    increasing: tuple[bool, ...],
    confidence: float,
    seed: int,
) -> list[Estimate]:
    """What `bootstrap` would say without each of the names in turn.

    The resamples that happen to lack a name (about 37 %) are resamples of the others, so nothing
    need be drawn anew: the jackknife-after-bootstrap (Efron 1992, J. R. Stat. Soc. B 54).
    """
    tail = (1 - confidence) / 2
    resamples = _resample(statistic, samples, increasing, seed)
    return [
        Estimate(
            value=float(statistic(*(np.delete(sample.middle, name) for sample in samples))),
            low=_quantile(resamples.lows[lacking], tail),
            high=_quantile(resamples.highs[lacking], 1 - tail),
        )
        for name, lacking in enumerate(resamples.lacks.T)
    ]


@dataclass(frozen=True)
class _Resamples:
    """A statistic's ends in every resample, and which names each lacks: (resamples, names)."""

    lows: Floats
    highs: Floats
    lacks: NDArray[np.bool_]


def _resample(
    statistic: Statistic, samples: tuple[Sample, ...], increasing: tuple[bool, ...], seed: int
) -> _Resamples:
    small, large = _ends(samples, increasing)
    n_names = len(samples[0].low)
    generator = np.random.default_rng(seed)
    lows, highs = [], []
    lacks = np.ones((RESAMPLES, n_names), dtype=np.bool_)
    for start in range(0, RESAMPLES, _CHUNK):
        drawn = generator.integers(n_names, size=(_CHUNK, n_names))
        lows.append(statistic(*(values[drawn] for values in small)))
        highs.append(statistic(*(values[drawn] for values in large)))
        np.put_along_axis(lacks[start : start + _CHUNK], drawn, values=False, axis=1)
    return _Resamples(np.concatenate(lows), np.concatenate(highs), lacks)


def _ends(
    samples: tuple[Sample, ...], increasing: tuple[bool, ...]
) -> tuple[tuple[Floats, ...], tuple[Floats, ...]]:
    """The ends of the samples that make a statistic smallest, and those that make it largest."""
    directed = list(zip(samples, increasing, strict=True))
    small = tuple(sample.low if up else sample.high for sample, up in directed)
    large = tuple(sample.high if up else sample.low for sample, up in directed)
    return small, large


def _quantile(values: Floats, q: float) -> float:
    # "Nearest" values: interpolation between infinities (ratios to 0) would not be a number.
    return float(np.quantile(values, q, method="nearest"))


def without_sampling(
    statistic: Statistic, samples: tuple[Sample, ...], *, increasing: tuple[bool, ...]
) -> Estimate:
    """A statistic of just these names: uncertain only where the samples themselves are intervals."""
    small, large = _ends(samples, increasing)
    return Estimate(
        value=float(statistic(*(sample.middle for sample in samples))),
        low=float(statistic(*small)),
        high=float(statistic(*large)),
    )


def mean_over(sample: Sample, confidence: float) -> Estimate:
    """The mean of a sample with Student's interval, which knows how few they are; (items,).

    Of samples that are intervals, the lower end is that of their lower ends. Fewer than three items, or
    any that is unbounded, leave it open.
    """
    n = len(sample.low)
    value = float(sample.middle.mean())
    if n < 3 or not np.isfinite([sample.low, sample.high]).all():
        return Estimate(value if np.isfinite(value) else np.nan, -np.inf, np.inf)
    t = _t_quantile((1 + confidence) / 2, n - 1) / np.sqrt(n)
    low = sample.low.mean() - t * sample.low.std(ddof=1)
    high = sample.high.mean() + t * sample.high.std(ddof=1)
    return Estimate(value, float(low), float(high))


def _t_quantile(p: float, degrees: int) -> float:
    """Student's t by the normal quantile (Abramowitz & Stegun 1964, 26.7.5).

    Within 4 % of the quantile of 97.5 % from two degrees of freedom on, and 0.1 % from five.
    """
    z = NormalDist().inv_cdf(p)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
