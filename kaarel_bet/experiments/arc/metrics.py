"""What a predicted grid is worth, and what several predictions for one test input are together."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kaarel_bet.experiments.arc.encodings import Unreadable
from kaarel_bet.experiments.arc.grids import Grid, size


@dataclass(frozen=True)
class Outcome:
    """One prediction against the expected grid; every metric of an unanswered one is 0."""

    grid: bool
    """All of it is right, which alone counts in ARC's own scoring."""
    size: bool
    cells: float
    """The share of cells that are right, 0..1; 0 when the size is wrong."""
    answered: bool
    """A grid could be read."""


def outcome(prediction: Grid | Unreadable, expected: Grid) -> Outcome:
    """What the prediction is worth."""
    if isinstance(prediction, Unreadable):
        return Outcome(grid=False, size=False, cells=0.0, answered=False)
    if size(prediction) != size(expected):
        return Outcome(grid=False, size=False, cells=0.0, answered=True)
    rows, columns = size(expected)
    right = sum(
        cell == wanted
        for row, wanted_row in zip(prediction, expected, strict=True)
        for cell, wanted in zip(row, wanted_row, strict=True)
    )
    return Outcome(
        grid=prediction == expected, size=True, cells=right / (rows * columns), answered=True
    )


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that k of n samples, drawn without replacement, hold one of the c correct ones.

    1 - C(n - c, k) / C(n, k), unbiased for k samples (Chen et al. 2021, https://arxiv.org/abs/2107.03374,
    equation 1). Not `best_of_k`, which asks of k definite ones.

    Raises:
        ValueError: not 0 <= c <= n or not 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {n} samples with {c} correct")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def best_of_k(predictions: Sequence[Grid | Unreadable], expected: Grid, k: int) -> bool:
    """Whether one of the first k predictions is right, as a submission with k attempts is judged."""
    return expected in predictions[:k]


def vote(predictions: Sequence[Grid | Unreadable]) -> list[tuple[Grid, int]]:
    """The different grids with how often each was predicted, most often first.

    Ties go to the one predicted first. What could not be read has no vote.
    """
    # Counter.most_common keeps the order of first appearance among equals.
    return Counter(p for p in predictions if not isinstance(p, Unreadable)).most_common()


def vote_at_k(predictions: Sequence[Grid | Unreadable], expected: Grid, k: int) -> bool:
    """Whether the expected grid is among the k that got most votes."""
    return best_of_k([grid for grid, _ in vote(predictions)], expected, k)
