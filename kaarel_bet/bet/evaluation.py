"""What an expression comes to: interval arithmetic over observations, and estimates of the result."""

from collections.abc import Callable
from dataclasses import dataclass, field

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
)
from kaarel_bet.bet.observations import SHARE, Observations, Range
from kaarel_bet.claims import settled
from kaarel_bet.estimates import (
    Ends,
    Estimate,
    Floats,
    Resamples,
    Sample,
    Weights,
    mean_over,
    resample,
    weighted_mean,
    weighted_median,
)
from kaarel_bet.proportions import paired_difference, wilson

_JUST_THESE = ("least", "greatest")
"""Aggregates that are about just these rows, so that there is nothing to resample."""


@dataclass
class Evaluator:
    """Evaluates expressions over one run's observations."""

    observations: Observations
    seed: int
    _rows: dict[tuple[Node | Comparing, bool], Sample] = field(
        default_factory=dict[tuple[Node | Comparing, bool], Sample]
    )

    def bootstrap(self, node: Node, confidence: float) -> Estimate:
        """Its value with a percentile interval over clusters of rows and over trainings.

        What is about just these rows is uncertain only where the scores themselves are intervals.
        """
        resamples = self.resamples(node)
        low, high = resamples.interval(confidence) if resamples else self.bounds(node)
        return Estimate(self.value(node), low, high)

    def resamples(self, node: Node) -> Resamples | None:
        """Its ends in every resample; None where there is nothing to resample."""
        samples = [self.rows(argument) for argument in _resampled(node)]
        if not samples:
            return None
        return resample(lambda weights: self._ends(node, weights), samples, self.seed)

    def value(self, node: Node) -> float:
        """Its value, intervals counting with their middle."""
        return float(self._ends(node, Weights.once, middle=True)[0].item())

    def bounds(self, node: Node) -> tuple[float, float]:
        """The least and the most that it can be for just these rows and trainings."""
        low, high = self._ends(node, Weights.once)
        return float(low.item()), float(high.item())

    def analytic(self, node: Node, confidence: float) -> Estimate:
        """By the formula for what it is: a mean of shares, a difference of two, or another mean."""
        value = self.value(node)
        rows = analytic_rows(node)
        if rows is None:
            low, high = self.bounds(node)
            return Estimate(value, low, high)
        sample = self.rows(rows)
        lows, highs = (
            _of_clusters(ends.mean(axis=0), sample) for ends in (sample.low, sample.high)
        )
        if _within(range_of(rows), SHARE):
            low, high = (wilson(float(ends.sum()), len(ends), confidence) for ends in (lows, highs))
        elif _within(range_of(rows), (-1.0, 1.0)):
            low, high = (paired_difference(ends, confidence) for ends in (lows, highs))
        else:
            found = mean_over(lows, highs, confidence)
            return Estimate(found.value, found.low, found.high)
        return Estimate(value, low.low, high.high)

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
        ends = (low, low if exact or middle else high)
        return Sample(*ends, found.clusters, found.runs, node.table)

    # --- numbers -----------------------------------------------------------------------------------

    def _ends(
        self, node: Node, weights: Callable[[Sample], Weights], *, middle: bool = False
    ) -> Ends:
        match node:
            case Constant():
                ends = np.array([node.value])
                return ends, ends
            case Operation():
                left, right = (
                    self._ends(side, weights, middle=middle) for side in (node.left, node.right)
                )
                return _operate(node.operator, left, right)
            case Aggregate():
                samples = [self.rows(argument, middle=middle) for argument in node.arguments]
                return _aggregate(node.function, samples, weights)
            case Observed():
                raise AssertionError("the parser lets no row expression stand for a number")


def _of_clusters(values: Floats, sample: Sample) -> Floats:
    """The means of clusters, which are independent where their rows are not."""
    names = list(dict.fromkeys(sample.clusters))
    place = np.array([names.index(cluster) for cluster in sample.clusters])
    return np.bincount(place, values) / np.bincount(place)


def _resampled(node: Node) -> list["Node | Comparing"]:
    """The row expressions whose aggregates know of sampling, in order."""
    match node:
        case Aggregate() if node.function not in _JUST_THESE:
            return list(node.arguments)
        case Operation():
            return [*_resampled(node.left), *_resampled(node.right)]
        case _:
            return []


def _joined(left: Sample, right: Sample, ends_of: Callable[[Ends, Ends], Ends]) -> Sample:
    """Two samples row by row; runs of different arms are paired by number."""
    if left.clusters and right.clusters and left.clusters != right.clusters:
        raise SettingsError("an expression combines questions of different rows row by row")
    n_runs = {len(side.low) for side in (left, right)} - {1}
    if len(n_runs) > 1:
        raise SettingsError(
            f"an expression combines {' and '.join(map(str, sorted(n_runs)))} trainings row by row; "
            "aggregate each first"
        )
    low, high = ends_of((left.low, left.high), (right.low, right.high))
    runs = left.runs if left.runs == right.runs else (*left.runs, *right.runs)
    return Sample(low, high, left.clusters or right.clusters, runs, left.table or right.table)


def _aggregate(function: str, samples: list[Sample], weights: Callable[[Sample], Weights]) -> Ends:
    if function in _JUST_THESE:
        pick = np.min if function == "least" else np.max
        return np.array([pick(samples[0].low)]), np.array([pick(samples[0].high)])
    if function in ("gain", "lead"):
        means = [_mean(sample, weights(sample)) for sample in samples]
        # At least half a row: where nothing is left to gain, shares of it are not numbers.
        least = 0.5 / samples[0].low.shape[1]
        if function == "gain":
            return _gain(means[0], means[1], least)
        return _lead(means[0], means[1], means[2], least)
    (sample,) = samples
    if function == "median":
        return _both(sample, lambda ends: weighted_median(ends, weights(sample)))
    if function == "geometric_mean":
        with np.errstate(divide="ignore"):
            return _both(sample, lambda ends: np.exp(weighted_mean(np.log(ends), weights(sample))))
    return _mean(sample, weights(sample))


def _mean(sample: Sample, weights: Weights) -> Ends:
    return _both(sample, lambda ends: weighted_mean(ends, weights))


def _both(sample: Sample, of: Callable[[Floats], Floats]) -> Ends:
    low = of(sample.low)
    return (low, low) if sample.low is sample.high else (low, of(sample.high))


def _gain(a: Ends, b: Ends, least: float) -> Ends:
    """(a - b) / (1 - b), which grows with a and falls with b as long as a is at most 1."""

    def gain(top: Floats, below: Floats) -> Floats:
        return (top - below) / np.maximum(1 - below, least)

    return gain(a[0], b[1]), gain(a[1], b[0])


def _lead(a: Ends, b: Ends, c: Ends, least: float) -> Ends:
    """(a - max(b, c)) / (1 - c); above and below the line apart, as it is not monotone in c."""
    ahead = a[0] - np.maximum(b[1], c[1]), a[1] - np.maximum(b[0], c[0])
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
        case Aggregate(function="gain" | "lead"):
            return -np.inf, 1.0
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


def analytic_rows(node: Node) -> Node | None:
    """The row expression whose mean a number is, if it is `mean(x)` or `mean(x) - mean(y)`."""
    match node:
        case Aggregate(function="mean", arguments=(rows,)) if not isinstance(rows, Comparing):
            return rows
        case Operation(operator="-", left=left, right=right):
            one, other = analytic_rows(left), analytic_rows(right)
            if one is not None and other is not None and "-" not in _operators(one, other):
                return Operation("-", one, other, "rows")
    return None


def _operators(*nodes: Node) -> set[str]:
    return {node.operator for node in nodes if isinstance(node, Operation)}


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
