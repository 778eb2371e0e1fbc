"""Estimates with their uncertainty: pure functions over rows (names, items, tasks) and trainings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

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
    """A quantity for every row, known to lie between `low` and `high`: (runs, rows).

    Runs are trainings, or draws of few-shot examples; `runs` names what they are of. Rows of one
    cluster are not independent of each other.
    """

    low: Floats
    high: Floats
    clusters: tuple[str, ...]
    runs: tuple[str, ...] = ()
    table: str = ""
    """Clusters of the same name in another table are others."""

    @property
    def middle(self) -> Floats:
        """The midpoints; the values themselves where they are exact."""
        return self.low if self.low is self.high else (self.low + self.high) / 2


@dataclass(frozen=True)
class Weights:
    """How often each row and each run comes in some resamples: (resamples, rows), (resamples, runs)."""

    rows: Counts
    runs: Counts

    @classmethod
    def once(cls, sample: Sample) -> "Weights":
        """Every row and run once: the sample itself."""
        n_runs, n_rows = sample.low.shape
        return cls(np.ones((1, n_rows), dtype=np.int64), np.ones((1, n_runs), dtype=np.int64))


@dataclass(frozen=True)
class Resamples:
    """A statistic's ends in every resample, and which cluster each lacks: (resamples, clusters)."""

    lows: Floats
    highs: Floats
    clusters: list[str] = field(default_factory=list[str])
    lacks: NDArray[np.bool_] = field(default_factory=lambda: np.ones((0, 0), dtype=np.bool_))

    def interval(self, confidence: float, *, without: int | None = None) -> tuple[float, float]:
        """The percentile interval (Efron & Tibshirani 1993, ch. 13), or that without one cluster.

        The resamples that happen to lack a cluster (about 37 %) are resamples of the others, so nothing
        need be drawn anew: the jackknife-after-bootstrap (Efron 1992, J. R. Stat. Soc. B 54).
        """
        tail = (1 - confidence) / 2
        chosen = slice(None) if without is None else self.lacks[:, without]
        return _quantile(self.lows[chosen], tail), _quantile(self.highs[chosen], 1 - tail)


Ends = tuple[Floats, Floats]
Statistic = Callable[[Callable[[Sample], Weights]], Ends]
"""Takes how samples are weighted in some resamples; returns its low and its high end in each."""


def resample(statistic: Statistic, samples: Sequence[Sample], seed: int) -> Resamples:
    """A statistic in resamples of clusters and of runs at once.

    Clusters of samples over the same rows are resampled together, and the runs of each on their own (the
    pigeonhole bootstrap: Owen 2007, Ann. Appl. Stat. 1).
    """
    lows, highs, lacks = [], [], []
    names: list[str] = []
    for draw in _draws(samples, np.random.default_rng(seed)):
        low, high = statistic(draw.weights)
        lows.append(np.broadcast_to(low, _CHUNK))
        highs.append(np.broadcast_to(high, _CHUNK))
        names = [name for _, known in draw.by_cluster for name in dict.fromkeys(known)]
        lacks.append(np.concatenate([drawn == 0 for drawn in draw.by_cluster.values()], axis=1))
    return Resamples(np.concatenate(lows), np.concatenate(highs), names, np.concatenate(lacks))


@dataclass(frozen=True)
class _Draw:
    """One chunk of resamples: how often each cluster of some rows was drawn, and each run."""

    by_cluster: dict[tuple[str, tuple[str, ...]], Counts]
    by_run: dict[tuple[tuple[str, ...], int], Counts]

    def weights(self, sample: Sample) -> Weights:
        """Of a sample's rows and runs."""
        place = {name: i for i, name in enumerate(dict.fromkeys(sample.clusters))}
        of_row = [place[cluster] for cluster in sample.clusters]
        rows = self.by_cluster[sample.table, sample.clusters][:, of_row]
        return Weights(rows, self.by_run[sample.runs, sample.low.shape[0]])


def _draws(samples: Sequence[Sample], generator: np.random.Generator) -> Iterator[_Draw]:
    for _ in range(0, RESAMPLES, _CHUNK):
        clusters = {(s.table, s.clusters): len(dict.fromkeys(s.clusters)) for s in samples}
        by_cluster = {key: _counts(n, generator) for key, n in clusters.items()}
        runs = dict.fromkeys((s.runs, s.low.shape[0]) for s in samples)
        yield _Draw(by_cluster, {key: _counts(key[1], generator) for key in runs})


def _counts(n: int, generator: np.random.Generator) -> Counts:
    """How often each of n things comes in resamples of them: (_CHUNK, n)."""
    drawn = generator.integers(n, size=(_CHUNK, n)) + n * np.arange(_CHUNK)[:, None]
    # Much faster than the generator's own multinomial counts.
    return np.bincount(drawn.ravel(), minlength=_CHUNK * n).reshape(_CHUNK, n)


def _quantile(values: Floats, q: float) -> float:
    # "Nearest" values: interpolation between infinities (ratios to 0) would not be a number.
    return float(np.quantile(values, q, method="nearest"))


# --- aggregates: (runs, rows) and weights -> (resamples,) ------------------------------------------


def weighted_mean(values: Floats, weights: Weights) -> Floats:
    """The mean; infinite where an infinite value has any weight."""
    drawn = weights.rows.sum(axis=1) * weights.runs.sum(axis=1)

    def mean(of: Floats) -> Floats:
        # Divided once, at the end: of rights and wrongs the mean is then exactly k / n.
        return ((weights.runs @ of) * weights.rows).sum(axis=1) / drawn

    finite = np.isfinite(values)
    if finite.all():
        return mean(values)
    # 0 times infinity is not a number; an infinite value that was not drawn has no say.
    found = mean(np.where(finite, values, 0.0))
    for infinite in (np.inf, -np.inf, np.nan):
        match = np.isnan(values) if np.isnan(infinite) else values == infinite
        found = np.where(mean(match.astype(float)) > 0, found + infinite, found)
    return found


def weighted_median(values: Floats, weights: Weights) -> Floats:
    """The median, of an even number the mean of the two in the middle."""
    counts = (weights.runs[:, :, None] * weights.rows[:, None, :]).reshape(len(weights.rows), -1)
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    upto = np.cumsum(counts[:, order], axis=1)
    total = upto[:, -1]
    middles = ((total - 1) // 2, total // 2)
    left, right = (flat[order][(upto <= m[:, None]).sum(axis=1)] for m in middles)
    return np.where(left == right, left, (left + right) / 2)


# --- by formula ------------------------------------------------------------------------------------


def mean_over(low: Floats, high: Floats, confidence: float) -> Estimate:
    """The mean of rows that lie between `low` and `high`, with Student's interval; (rows,).

    The lower end is that of the lower ends. Fewer than three rows, or any that is unbounded, leave it
    open.
    """
    n = len(low)
    with np.errstate(invalid="ignore"):
        value = float(((low + high) / 2).mean())
    if n < 3 or not np.isfinite([low, high]).all():
        return Estimate(value if np.isfinite(value) else np.nan, -np.inf, np.inf)
    t = _t_quantile((1 + confidence) / 2, n - 1) / np.sqrt(n)
    return Estimate(
        value,
        float(low.mean() - t * low.std(ddof=1)),
        float(high.mean() + t * high.std(ddof=1)),
    )


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
