"""Estimates with their uncertainty: pure functions over rows (names, items, tasks) and trainings.

docs/statistics.md says what the intervals cover, by simulation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

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
    cluster are not independent of each other. `asked` is which rows a run was asked, where they differ.
    """

    low: Floats
    high: Floats
    clusters: tuple[str, ...]
    runs: tuple[str, ...] = ()
    table: str = ""
    """Clusters of the same name in another table are others."""
    asked: NDArray[np.bool_] | None = None

    @property
    def n_clusters(self) -> int:
        """How many clusters the rows are in."""
        return len(dict.fromkeys(self.clusters))

    @property
    def rows_key(self) -> tuple[str, tuple[str, ...]]:
        """What samples have in common whose rows are drawn together."""
        return self.table, self.clusters

    @property
    def runs_key(self) -> tuple[tuple[str, ...], int]:
        """What samples have in common whose runs are."""
        return self.runs, len(self.low)

    def of_runs(self) -> "Sample":
        """One question asked in every run: what varies are the runs, which then are the rows."""
        low, high = (ends.mean(axis=1)[None, :] for ends in (self.low, self.high))
        names = tuple(f"training {number}" for number in range(1, len(self.low) + 1))
        return Sample(low, high, names, table=f"runs of {' and '.join(self.runs)}")

    def padded(self, values: Sequence[float]) -> "Sample":
        """With further clusters that have these values, each as many rows as clusters have on average."""
        n = max(1, round(self.low.shape[1] / self.n_clusters))
        further = np.tile(np.repeat(values, n), (len(self.low), 1))
        low = np.concatenate([self.low, further], axis=1)
        high = np.concatenate([self.high, further], axis=1)
        names = tuple(f"pad {place}" for place in range(len(values)) for _ in range(n))
        asked = self.asked
        if asked is not None:
            asked = np.concatenate([asked, np.ones_like(further, dtype=np.bool_)], axis=1)
        return Sample(low, high, self.clusters + names, self.runs, self.table, asked)


@dataclass(frozen=True)
class Weights:
    """How often each row and each run counts in some resamples: (resamples, rows), (resamples, runs)."""

    rows: Counts
    runs: Counts


Ends = tuple[Floats, Floats]
Weighing = Callable[[Sample], Weights]
Statistic = Callable[[Weighing], Ends]
"""Takes how samples are weighted in some resamples; returns its low and its high end in each."""


def once(sample: Sample) -> Weights:
    """Every row and run once: the sample itself."""
    n_runs, n_rows = sample.low.shape
    return Weights(np.ones((1, n_rows), dtype=np.int64), np.ones((1, n_runs), dtype=np.int64))


@dataclass(frozen=True)
class Resampling:
    """How often each cluster of some rows, and each run, counts in `n` resamples; others once."""

    n: int
    by_cluster: dict[tuple[str, tuple[str, ...]], Counts] = field(default_factory=dict)
    by_run: dict[tuple[tuple[str, ...], int], Counts] = field(default_factory=dict)

    def weights(self, sample: Sample) -> Weights:
        """Of a sample's rows and runs."""
        n_runs, n_rows = sample.low.shape
        rows = np.ones((self.n, n_rows), dtype=np.int64)
        runs = self.by_run.get(sample.runs_key, np.ones((self.n, n_runs), dtype=np.int64))
        if (drawn := self.by_cluster.get(sample.rows_key)) is not None:
            place = {name: i for i, name in enumerate(dict.fromkeys(sample.clusters))}
            rows = drawn[:, [place[cluster] for cluster in sample.clusters]]
        return Weights(rows, runs)


# --- variance by leaving out -------------------------------------------------------------------------


@dataclass(frozen=True)
class Component:
    """What one thing that varies (clusters of some rows, trainings of an arm) adds to the uncertainty."""

    is_rows: bool
    variance: float
    """Of the statistic, in its own unit squared."""
    degrees: int
    """Of freedom, for Student's t."""


def components(
    statistic: Callable[[Weighing], Floats], samples: Sequence[Sample], seed: int, *, smooth: bool
) -> list[Component]:
    """The variance of a statistic by clusters of each table, and by the runs of each arm.

    By the jackknife (Efron & Tibshirani 1993, ch. 11), which of a mean is exactly s / sqrt(n); for what is
    not smooth (a median, for which it does not work) clusters are bootstrapped instead (ch. 6).
    What there is only one of is left out: it says nothing of how it varies.
    """
    found = []
    for key, n in {s.rows_key: s.n_clusters for s in samples if s.n_clusters > 1}.items():
        if smooth:
            groups = _groups_left_out(n, np.random.default_rng(seed))
            drawn = Resampling(len(groups), by_cluster={key: groups})
            variance = _jackknife(statistic(drawn.weights), len(groups))
            found.append(Component(True, variance, len(groups) - 1))
            continue
        counts = _counts(n, np.random.default_rng(seed))
        values = statistic(Resampling(_CHUNK, by_cluster={key: counts}).weights)
        found.append(Component(True, float(values.var()) * n / (n - 1), n - 1))
    for key in dict.fromkeys(s.runs_key for s in samples if len(s.low) > 1):
        n = key[1]
        drawn = Resampling(n, by_run={key: each_left_out(n)})
        found.append(Component(False, _jackknife(statistic(drawn.weights), n), n - 1))
    return found


def each_left_out(n: int) -> Counts:
    """Every one of n things left out in turn: (n, n)."""
    return np.ones((n, n), dtype=np.int64) - np.eye(n, dtype=np.int64)


def _groups_left_out(n: int, generator: np.random.Generator) -> Counts:
    """The same; of very many, groups of them, dealt at random (Kott 2001, J. Off. Stat. 17)."""
    if n <= _CHUNK:
        return each_left_out(n)
    dealt = generator.permutation(n) % _CHUNK
    return (dealt[None, :] != np.arange(_CHUNK)[:, None]).astype(np.int64)


def _jackknife(left_out: Floats, n: int) -> float:
    return float((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def half_width(parts: Sequence[Component], tail: float) -> float:
    """Of an interval with this much outside on either side: each part by its own t, squares added.

    Squared half-widths add up like variances (the method of variance estimates recovery: Zou & Donner
    2008, Stat. Med. 27), where parts have different degrees of freedom.
    """
    return float(np.sqrt(sum(t_quantile(1 - tail, p.degrees) ** 2 * p.variance for p in parts)))


def t_quantile(p: float, degrees: int) -> float:
    """Student's t."""
    from scipy import stats  # half a second that a finished run need not wait for

    return float(cast("float", stats.t.ppf(p, degrees)))


# --- the bootstrap -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resamples:
    """A statistic's ends in every resample, and which cluster each lacks: (resamples, clusters)."""

    lows: Floats
    highs: Floats
    clusters: list[str] = field(default_factory=list[str])
    lacks: NDArray[np.bool_] = field(default_factory=lambda: np.ones((0, 0), dtype=np.bool_))

    def interval(self, tail: float, *, without: int | None = None) -> tuple[float, float]:
        """The percentile interval (Efron & Tibshirani 1993, ch. 13), or that without one cluster.

        The resamples that happen to lack a cluster (about 37 %) are resamples of the others, so nothing
        need be drawn anew: the jackknife-after-bootstrap (Efron 1992, J. R. Stat. Soc. B 54).
        """
        chosen = slice(None) if without is None else self.lacks[:, without]
        return _quantile(self.lows[chosen], tail), _quantile(self.highs[chosen], 1 - tail)


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


def _draws(samples: Sequence[Sample], generator: np.random.Generator) -> Iterator[Resampling]:
    for _ in range(0, RESAMPLES, _CHUNK):
        clusters = {s.rows_key: s.n_clusters for s in samples}
        by_cluster = {key: _counts(n, generator) for key, n in clusters.items()}
        runs = dict.fromkeys(s.runs_key for s in samples)
        yield Resampling(_CHUNK, by_cluster, {key: _counts(key[1], generator) for key in runs})


def _counts(n: int, generator: np.random.Generator) -> Counts:
    """How often each of n things comes in resamples of them: (_CHUNK, n)."""
    drawn = generator.integers(n, size=(_CHUNK, n)) + n * np.arange(_CHUNK)[:, None]
    # Much faster than the generator's own multinomial counts.
    return np.bincount(drawn.ravel(), minlength=_CHUNK * n).reshape(_CHUNK, n)


def _quantile(values: Floats, q: float) -> float:
    # "Nearest" values: interpolation between infinities (ratios to 0) would not be a number.
    return float(np.quantile(values, q, method="nearest"))


# --- aggregates: (runs, rows) and weights -> (resamples,) ------------------------------------------


def weighted_mean(values: Floats, weights: Weights, asked: NDArray[np.bool_] | None) -> Floats:
    """The mean of what was asked; infinite where an infinite value has any weight."""
    if asked is None:
        drawn = weights.rows.sum(axis=1) * weights.runs.sum(axis=1)
    else:
        values = np.where(asked, values, 0.0)
        drawn = ((weights.runs @ asked.astype(np.int64)) * weights.rows).sum(axis=1)

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
        with np.errstate(invalid="ignore"):  # one of each sign leaves no number
            found = np.where(mean(match.astype(float)) > 0, found + infinite, found)
    return found


def weighted_median(
    values: Floats, weights: Weights, asked: NDArray[np.bool_] | None, *, log: bool
) -> Floats:
    """The median of every run's rows (of an even number the mean of the two in the middle).

    Over runs their mean, of probabilities (`log`) the geometric one: a training that shifts every row's
    log-probability shifts its median as much.
    """
    of_runs = np.stack(
        [
            _median(run, weights.rows if asked is None else weights.rows * asked[place])
            for place, run in enumerate(values)
        ],
        axis=1,
    )
    if len(values) == 1:
        return of_runs[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(of_runs) if log else of_runs
        total = np.where(weights.runs > 0, scaled, 0.0) * weights.runs
        found = total.sum(axis=1) / weights.runs.sum(axis=1)
        return np.exp(found) if log else found


def _median(values: Floats, counts: Counts) -> Floats:
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(counts[:, order], axis=1)
    total = upto[:, -1]
    middles = ((total - 1) // 2, total // 2)
    left, right = (values[order][(upto <= m[:, None]).sum(axis=1)] for m in middles)
    return np.where(left == right, left, (left + right) / 2)
