"""What an expression comes to: interval arithmetic over observations, and estimates of the result."""

import math
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from backends.errors import SettingsError
from kaarel_bet.bet.expressions import (
    Aggregate,
    Comparing,
    Constant,
    Node,
    Observed,
    Operation,
    as_constant,
    observed_in,
)
from kaarel_bet.bet.observations import DRAWS, SHARE, Observations, Range
from kaarel_bet.claims import settled
from kaarel_bet.estimates import (
    Component,
    Ends,
    Estimate,
    Floats,
    Resamples,
    Resampling,
    Sample,
    Weighing,
    Weights,
    components,
    half_width,
    once,
    resample,
    weighted_mean,
    weighted_median,
)

_JUST_THESE = ("least", "greatest")
"""Aggregates that are about just these rows, so that there is nothing to resample."""

_PAIRS = ("agreement", "kappa")
"""Aggregates of whether two things are the same of a row."""

_MEANS = ("mean", "share", "gain", "lead", "ahead", *_PAIRS)


_LEAST, _MOST = 1e-300, 1e300
"""Where logarithms end: probabilities can underflow to 0, and ratios to 0 are infinite."""

_MOST_LEFT_OUT = 200
"""Clusters that are left out one by one."""

Drop = tuple[str, str]
"""A table, and a cluster of its rows that is left out."""


@dataclass
class Evaluator:
    """Evaluates expressions over one run's observations."""

    observations: Observations
    seed: int
    _rows: dict[tuple[Node | Comparing, bool], Sample] = field(
        default_factory=dict[tuple[Node | Comparing, bool], Sample]
    )
    _spreads: dict[tuple[Node, Drop | None], tuple["_End", "_End"]] = field(
        default_factory=dict[tuple[Node, Drop | None], tuple["_End", "_End"]]
    )

    def value(self, node: Node) -> float:
        """Its value, intervals counting with their middle."""
        return float(_ends(node, once, lambda rows: self.rows(rows, middle=True))[0].item())

    def bounds(self, node: Node) -> tuple[float, float]:
        """The least and the most that it can be for just these rows and trainings."""
        low, high = _ends(node, once, self.rows)
        return float(low.item()), float(high.item())

    def student(self, node: Node, tail: float) -> Estimate:
        """Its value, and an interval over rows and trainings with `tail` outside of it on either side.

        Of probabilities and ratios on their logarithms. What is about just these rows is uncertain only
        where the scores themselves are intervals.
        """
        return Estimate(self.value(node), *self._interval(node, tail))

    def half_width(self, node: Node, tail: float) -> tuple[float, bool]:
        """Of its interval, and whether that is of its logarithm."""
        if not _resampled(node):
            return 0.0, False
        if leads := _leads(node):
            return max(self.half_width(lead, tail)[0] for lead in leads), False
        low, high = self._spread(node, None)
        return (low.distance(tail, -1) + high.distance(tail, 1)) / 2, _is_positive(node)

    def bootstrap(self, node: Node, tail: float) -> Estimate:
        """The same with a percentile interval, which knows too little of few trainings and few rows."""
        resamples = self._resamples(node)
        low, high = resamples.interval(tail) if resamples else self.bounds(node)
        return Estimate(self.value(node), low, high)

    def without_each(
        self, node: Node, tail: float, *, bootstrap: bool
    ) -> Iterator[tuple[str, float, float]]:
        """Every cluster of rows, and the interval without it; none where there is only one."""
        resamples = self._resamples(node) if bootstrap else None
        if resamples is not None and len(resamples.clusters) > 1:
            for place, cluster in enumerate(resamples.clusters):
                yield cluster, *resamples.interval(tail, without=place)
        elif not bootstrap:
            tables = {s.table: s for s in map(self.rows, _resampled(node)) if s.n_clusters > 1}
            for table, sample in tables.items():
                for cluster in self._weightiest(node, sample):
                    yield cluster, *self._interval(node, tail, (table, cluster))

    def _weightiest(self, node: Node, sample: Sample) -> list[str]:
        """The clusters of some rows; of very many, those without which the value is furthest off."""
        names = list(dict.fromkeys(sample.clusters))
        if len(names) <= _MOST_LEFT_OUT:
            return names
        value, off = self.value(node), list[float]()
        for start in range(0, len(names), _MOST_LEFT_OUT):
            some = range(start, min(start + _MOST_LEFT_OUT, len(names)))
            counts = np.ones((len(some), len(names)), dtype=np.int64)
            counts[np.arange(len(some)), some] = 0
            drawn = Resampling(len(some), by_cluster={sample.rows_key: counts})
            off += list(np.abs(_ends(node, drawn.weights, self.rows)[0] - value))
        order = np.argsort(off)[::-1][:_MOST_LEFT_OUT]
        return [names[place] for place in order]

    def trainings(self, node: "Node | Comparing", untrained: Container[str]) -> dict[str, int]:
        """Trained arm -> how many trainings of it an expression is of."""
        found: dict[str, int] = {}
        for one in observed_in(node):
            if one.arm not in untrained:
                sample = self._observed(one, middle=False)
                found[one.arm] = len(sample.low) if sample.runs == (one.arm,) else 1
        return found

    # --- intervals ---------------------------------------------------------------------------------

    def _resamples(self, node: Node) -> Resamples | None:
        samples = [self.rows(argument) for argument in _resampled(node)]
        if not samples:
            return None
        return resample(lambda weights: _ends(node, weights, self.rows), samples, self.seed)

    def _interval(self, node: Node, tail: float, drop: Drop | None = None) -> tuple[float, float]:
        if not _resampled(node):
            return self.bounds(node)
        if leads := _leads(node):
            ends = [self._interval(lead, tail, drop) for lead in leads]
            return min(low for low, _ in ends), min(high for _, high in ends)
        low, high = self._spread(node, drop)
        unit = math.exp if _is_positive(node) else float
        least, most = range_of(node)
        # An end that isn't finite says nothing: a score has no bound, or nothing tells the variance.
        bottom, top = low.at - low.distance(tail, -1), high.at + high.distance(tail, 1)
        return (
            max(least, unit(bottom)) if math.isfinite(bottom) else least,
            min(most, unit(top)) if math.isfinite(top) else most,
        )

    def _spread(self, node: Node, drop: Drop | None) -> tuple["_End", "_End"]:
        if (node, drop) not in self._spreads:
            self._spreads[node, drop] = self._make_spread(node, drop)
        return self._spreads[node, drop]

    def _make_spread(self, node: Node, drop: Drop | None) -> tuple["_End", "_End"]:
        """What either end is, and what it varies by; as they are, and padded where values are bounded."""
        arguments = _resampled(node)
        pads = _pads(node)

        def plain(rows: "Node | Comparing") -> Sample:
            sample = _without(self.rows(rows), drop)
            is_mean = sample.low.shape[1] == 1 or rows in means - pairs
            one_question = sample.n_clusters == 1 and len(sample.low) > 1 and sample.asked is None
            return sample.of_runs() if is_mean and one_question else sample

        def padded(rows: "Node | Comparing") -> Sample:
            sample = plain(rows)
            if rows not in pads or sample.n_clusters == 1:
                return sample
            is_clustered = sample.n_clusters < sample.low.shape[1]
            return sample.padded(pads[rows][:2] if is_clustered else pads[rows])

        means = {*_means(node)}
        # Whether two are the same of a row is not told by their means.
        pairs = {a for one in _aggregates(node) if one.function in _PAIRS for a in one.arguments}
        samples = [padded(rows) for rows in arguments]
        smooth = all(one.function != "median" for one in _aggregates(node))
        found = []
        for end in (0, 1):

            def at(weights: Weighing, of: _Of, end: int = end) -> Floats:
                values = _ends(node, weights, of)[end]
                return np.log(np.clip(values, _LEAST, _MOST)) if _is_positive(node) else values

            with np.errstate(invalid="ignore"):
                parts = components(
                    lambda by, at=at: at(by, padded), samples, self.seed, smooth=smooth
                )
            found.append(_End(float(at(once, plain).item()), float(at(once, padded).item()), parts))
            if all(np.array_equal(sample.low, sample.high) for sample in samples):
                return found[0], found[0]
        return found[0], found[1]

    # --- rows --------------------------------------------------------------------------------------

    def rows(self, node: "Node | Comparing", *, middle: bool = False) -> Sample:
        """A row expression's ends, or its middles, for every training and row."""
        key = (node, middle)
        if key not in self._rows:
            self._rows[key] = self._make_rows(node, middle)
        return self._rows[key]

    def _make_rows(self, node: "Node | Comparing", middle: bool) -> Sample:
        match node:
            case Observed():
                return self._observed(node, middle)
            case Constant() | Aggregate():
                value = as_constant(node)
                assert value is not None, "the parser lets no aggregate into a row expression"
                ends = np.full((1, 1), value)
                return Sample(ends, ends, ())
            case Operation():
                ends_of = lambda left, right: _operate(node.operator, left, right)  # noqa: E731
            case Comparing():
                ends_of = lambda left, right: _compare(node, left, right)  # noqa: E731
        left, right = (self.rows(side, middle=middle) for side in (node.left, node.right))
        return _joined(left, right, ends_of)

    def _observed(self, node: Observed, middle: bool) -> Sample:
        try:
            found = self.observations.sample(node.quantity, node.question, node.arm, node.candidate)
        except KeyError as error:
            raise SettingsError(
                f"{node.quantity} of {node.question} was not observed in the arm {node.arm}"
            ) from error
        low, high = found.low, found.high
        exact = np.array_equal(low, high)
        if node.exponential:
            low, high = np.exp(low), np.exp(high)
        if middle and not exact:
            low = (low + high) / 2
        return replace(found, low=low, high=low if exact or middle else high, table=node.table)


@dataclass(frozen=True)
class _End:
    """One end of a statistic: where it is, where it would be with the padding, and what it varies by."""

    at: float
    padded: float
    parts: Sequence[Component]

    def distance(self, tail: float, sign: int) -> float:
        """From it to the end of its interval, below (-1) or above (1)."""
        if not self.parts:
            return math.inf
        rows = half_width([part for part in self.parts if part.is_rows], tail)
        runs = half_width([part for part in self.parts if not part.is_rows], tail)
        return math.hypot(max(0.0, sign * (self.padded - self.at) + rows), runs)


def distance(value: float, other: float, *, is_log: bool) -> float:
    """By how much a value is above another, or its logarithm above the other's."""
    if not is_log:
        return value - other
    low, high = (min(max(x, _LEAST), _MOST) for x in (other, value))
    return math.log(high) - math.log(low)


_Of = Callable[["Node | Comparing"], Sample]
"""Row expression -> its rows."""


def _resampled(node: Node) -> list["Node | Comparing"]:
    """The row expressions whose aggregates know of sampling, in order."""
    match node:
        case Aggregate() if node.function not in _JUST_THESE:
            return list(node.arguments)
        case Operation():
            return [*_resampled(node.left), *_resampled(node.right)]
        case _:
            return []


def _aggregates(node: Node) -> Iterator[Aggregate]:
    match node:
        case Aggregate():
            yield node
        case Operation():
            yield from _aggregates(node.left)
            yield from _aggregates(node.right)
        case _:
            return


def _means(node: Node) -> list["Node | Comparing"]:
    """The row expressions that only means are taken of."""
    found = list(_aggregates(node))
    others = {a for one in found if one.function not in _MEANS for a in one.arguments}
    return [a for one in found for a in one.arguments if a not in others]


def _is_positive(node: Node) -> bool:
    """Whether its logarithm is judged: of a probability's aggregate, of ratios of what is not negative."""
    match node:
        case Aggregate(function="mean" | "median" | "geometric_mean", arguments=(rows,)):
            return _exponential(rows) and range_of(rows)[0] >= 0
        case Operation(operator="*" | "/"):
            sides = [side for side in (node.left, node.right) if as_constant(side) is None]
            return all(range_of(side)[0] >= 0 for side in (node.left, node.right)) and (
                len(sides) > 1 or all(map(_is_positive, sides))
            )
        case _:
            return False


def _leads(node: Node) -> list[Node]:
    """The smooth leads, over either prompt, of which `lead` is the lesser.

    Near a tie the better of two has no variance that could be told from one of them; the ends of both are
    right, so the lesser of each is.
    """
    match node:
        case Aggregate(function="lead", arguments=(a, b, c)):
            return [Aggregate("ahead", (a, b, c)), Aggregate("ahead", (a, c, c))]
        case _:
            return []


def _pads(node: Node) -> dict["Node | Comparing", tuple[float, ...]]:
    """Rows to add where means are of bounded values, so that rows that never differ are not taken as sure.

    Two at either bound for one share (Agresti & Coull 1998, Am. Stat. 52), for a difference one of each
    sign (Bonett & Price 2012, J. Educ. Behav. Stat. 37); of whole clusters one at either bound.
    """
    bounded = (a for a in _means(node) if np.isfinite(range_of(a)).all())
    # Probabilities are bounded as well, but near nothing: one of 1 would be out of all proportion.
    found = list(
        dict.fromkeys(a for a in bounded if isinstance(a, Comparing) or not _exponential(a))
    )
    pads: dict[Node | Comparing, tuple[float, ...]] = {}
    for pair in (one.arguments for one in _aggregates(node) if one.function in _PAIRS):
        pads |= dict(zip(pair, ((1, 0, 0, 1), (1, 1, 0, 0)), strict=True))  # of two rows one agrees
        found = [rows for rows in found if rows not in pair]
    for place, rows in enumerate(found):
        least, most = range_of(rows)
        each = (most, least) if place == 0 else (least, most)
        pads[rows] = each * 2 if len(found) == 1 and least >= 0 else each
    return pads


def _exponential(node: "Node | Comparing") -> bool:
    return any(one.exponential for one in observed_in(node))


def _without(sample: Sample, drop: Drop | None) -> Sample:
    if drop is None or sample.table != drop[0]:
        return sample
    kept = np.array([cluster != drop[1] for cluster in sample.clusters])
    low = sample.low[:, kept]
    return replace(
        sample,
        low=low,
        high=low if sample.high is sample.low else sample.high[:, kept],
        clusters=tuple(cluster for cluster in sample.clusters if cluster != drop[1]),
        asked=None if sample.asked is None else sample.asked[:, kept],
    )


def _joined(left: Sample, right: Sample, ends_of: Callable[[Ends, Ends], Ends]) -> Sample:
    """Two samples row by row; trainings of different arms are paired by number."""
    if left.clusters and right.clusters and left.clusters != right.clusters:
        raise SettingsError("an expression combines questions of different rows row by row")
    if left.runs != right.runs:  # draws of examples are nothing that could be paired with another's
        left, right = map(_over_draws, (left, right))
    n_runs = {len(side.low) for side in (left, right)} - {1}
    if len(n_runs) > 1:
        raise SettingsError(
            f"an expression combines {' and '.join(map(str, sorted(n_runs)))} trainings row by row; "
            "aggregate each first"
        )
    low, high = ends_of((left.low, left.high), (right.low, right.high))
    several = [side for side in (left, right) if len(side.low) > 1] or [left, right]
    runs = tuple(dict.fromkeys(name for side in several for name in side.runs))
    # Of the same rows: what one side was not asked, the other wasn't either.
    asked = left.asked if left.asked is not None else right.asked
    return Sample(
        low, high, left.clusters or right.clusters, runs, left.table or right.table, asked
    )


def _over_draws(sample: Sample) -> Sample:
    if DRAWS not in "".join(sample.runs) or len(sample.low) == 1:
        return sample
    low, high = (ends.mean(axis=0, keepdims=True) for ends in (sample.low, sample.high))
    return replace(sample, low=low, high=high)


# --- numbers -----------------------------------------------------------------------------------------


def _ends(node: Node, weights: Weighing, of: _Of) -> Ends:
    match node:
        case Constant():
            ends = np.array([node.value])
            return ends, ends
        case Operation():
            left, right = (_ends(side, weights, of) for side in (node.left, node.right))
            return _operate(node.operator, left, right)
        case Aggregate():
            samples = [of(argument) for argument in node.arguments]
            return _aggregate(node.function, samples, weights, log=_exponential(node))
        case Observed():
            raise AssertionError("the parser lets no row expression stand for a number")


def _aggregate(function: str, samples: list[Sample], weights: Weighing, *, log: bool) -> Ends:
    if function in _JUST_THESE:
        pick = np.min if function == "least" else np.max
        asked = samples[0].asked
        found = [
            ends if asked is None else ends[asked] for ends in (samples[0].low, samples[0].high)
        ]
        return np.array([pick(found[0])]), np.array([pick(found[1])])
    if function in ("gain", "lead", "ahead"):
        means = [_mean(sample, weights(sample)) for sample in samples]
        # At least half a row: where nothing is left to gain, shares of it are not numbers.
        least = 0.5 / samples[0].low.shape[1]
        if function == "gain":
            return _gain(means[0], means[1], least)
        b = means[1]
        if function == "lead":
            b = np.maximum(b[0], means[2][0]), np.maximum(b[1], means[2][1])
        return _ahead(means[0], b, means[2], least)
    if function in _PAIRS:
        return _agreement(samples[0], samples[1], weights, beyond_chance=function == "kappa")
    (sample,) = samples
    by, asked = weights(sample), sample.asked
    if function == "median":
        return _both(sample, lambda ends: weighted_median(ends, by, asked, log=log))
    if function == "geometric_mean":
        with np.errstate(divide="ignore"):
            return _both(sample, lambda ends: np.exp(weighted_mean(np.log(ends), by, asked)))
    return _mean(sample, by)


def _mean(sample: Sample, weights: Weights) -> Ends:
    return _both(sample, lambda ends: weighted_mean(ends, weights, sample.asked))


def _both(sample: Sample, of: Callable[[Floats], Floats]) -> Ends:
    low = of(sample.low)
    return (low, low) if sample.low is sample.high else (low, of(sample.high))


def _gain(a: Ends, b: Ends, least: float) -> Ends:
    """(a - b) / (1 - b), which grows with a and falls with b as long as a is at most 1."""

    def gain(top: Floats, below: Floats) -> Floats:
        return (top - below) / np.maximum(1 - below, least)

    return gain(a[0], b[1]), gain(a[1], b[0])


def _agreement(one: Sample, other: Sample, weights: Weighing, *, beyond_chance: bool) -> Ends:
    """The share of rows where two that are 0 or 1 are equal; both may be where either is not settled."""
    settled = (one.low == one.high) & (other.low == other.high)
    equal = one.low == other.low
    same = replace(one, low=(settled & equal) * 1.0, high=(~settled | equal) * 1.0)
    observed = _mean(same, weights(one))
    if not beyond_chance:
        return observed
    of_one, of_other = _mean(one, weights(one)), _mean(other, weights(other))
    chance = [a * b + (1 - a) * (1 - b) for a in of_one for b in of_other]
    least, most = np.minimum.reduce(chance), np.maximum.reduce(chance)
    room = 0.5 / one.low.shape[1]  # where chance alone would make all equal, none is beyond it
    return (
        (observed[0] - most) / np.maximum(1 - most, room),
        (observed[1] - least) / np.maximum(1 - least, room),
    )


def _ahead(a: Ends, b: Ends, c: Ends, least: float) -> Ends:
    """(a - b) / (1 - c); above and below the line apart, as `lead` is not monotone in c."""
    ahead = a[0] - b[1], a[1] - b[0]
    return _divide(ahead, (np.maximum(1 - c[1], least), np.maximum(1 - c[0], least)))


def _compare(node: Comparing, left: Ends, right: Ends) -> Ends:
    """1 where the comparison surely is true, and 1 where it may be."""
    low, high = _operate("-", left, right)
    if node.comparison in ("<", "<="):
        low, high = -high, -low
    strict = node.comparison in (">", "<")
    sure, possible = (low > 0, high > 0) if strict else (low >= 0, high >= 0)
    return sure.astype(float), possible.astype(float)


# --- interval arithmetic -----------------------------------------------------------------------------


def _operate(operator: str, left: Ends, right: Ends) -> Ends:
    # Probabilities can underflow to 0. A ratio to 0 is infinite; 0 / 0 is not a number, and a
    # criterion on it is not settled.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        match operator:
            case "+":
                return left[0] + right[0], left[1] + right[1]
            case "-":
                return left[0] - right[1], left[1] - right[0]
            case "*":
                products = [a * b for a in left for b in right]
                return np.fmin.reduce(products), np.fmax.reduce(products)
            case _:
                return _divide(left, right)


def _divide(left: Ends, right: Ends) -> Ends:
    negative = right[1] < 0
    bottom = np.where(negative, -right[1], right[0]), np.where(negative, -right[0], right[1])
    top = np.where(negative, -left[1], left[0]), np.where(negative, -left[0], left[1])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        low = top[0] / np.where(top[0] >= 0, bottom[1], bottom[0])
        high = top[1] / np.where(top[1] >= 0, bottom[0], bottom[1])
    spans = bottom[0] < 0  # the denominator may be 0 and have either sign
    return np.where(spans, -np.inf, low), np.where(spans, np.inf, high)


# --- what can be said without observations ------------------------------------------------------------


def range_of(node: "Node | Comparing") -> Range:
    """The least and the most that an expression can be, whatever is observed."""
    match node:
        case Constant():
            return node.value, node.value
        case Observed():
            return node.range
        case Comparing():
            return SHARE
        case Aggregate(function="gain" | "lead" | "ahead"):
            return -np.inf, 1.0
        case Aggregate(function="kappa"):
            return -1.0, 1.0
        case Aggregate():
            return range_of(node.arguments[0])
        case Operation():
            left, right = (
                tuple(np.array(end) for end in range_of(side)) for side in (node.left, node.right)
            )
            low, high = _operate(node.operator, (left[0], left[1]), (right[0], right[1]))
            known = not (np.isnan(low) or np.isnan(high))
            return (float(low), float(high)) if known else (-np.inf, np.inf)


_RANGES: dict[str, Range] = {"gain": SHARE, "lead": SHARE, "geometric_mean": (0.0, np.inf)}
"""What the arguments of some aggregates have to lie in."""


def beyond_range(node: "Node | Comparing") -> str | None:
    """Why an aggregate makes no sense of what it is of, if one doesn't."""
    if isinstance(node, Operation | Comparing):
        return beyond_range(node.left) or beyond_range(node.right)
    if isinstance(node, Aggregate) and node.function in _RANGES:
        least, most = _RANGES[node.function]
        if not all(_within(range_of(one), (least, most)) for one in node.arguments):
            return f"{node.function} takes values from {least:g} to {most:g}"
    return None


def foregone(comparing: Comparing) -> bool | None:
    """Whether a comparison holds, or fails, whatever is observed; None where that is open."""
    difference = Operation("-", comparing.left, comparing.right, "number")
    return settled(*range_of(difference), comparing.comparison, 0.0)


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
