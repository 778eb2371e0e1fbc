"""What predicted grids are worth, and the observations that this makes: one number a task."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kaarel_bet.bet.observations import SHARE, Observation, Question, Range, Vocabulary
from kaarel_bet.experiments.arc.arms import (
    COUNTING,
    IN_DEPTH,
    TEST_TIME,
    Model,
    arms_asked,
    models,
)
from kaarel_bet.experiments.arc.grids import SETS, ArcItem, Grid, SetName, Unreadable, size
from kaarel_bet.experiments.arc.replies import Replies, vote
from kaarel_bet.experiments.arc.sets import shared
from kaarel_bet.experiments.arc.settings import ArcBet
from kaarel_bet.experiments.interface import BASE

UNSEEN: tuple[SetName, ...] = ("other", "test")
"""What arms that learn the training set have not seen: together they are the question `unseen`."""

VIEWS = "test.views"
"""The question that the test set under augmentation is."""

_ANSWERED: dict[str, Range] = {
    **dict.fromkeys(("pass_at_k", "pass_at_1", "greedy", "size", "cells", "unanswered"), SHARE),
    "loss": (0.0, math.inf),
}
_IN_VIEWS: dict[str, Range] = dict.fromkeys(("vote", "experts", "any_view", "any_candidate"), SHARE)
_OF_TASKS: dict[str, Range] = dict.fromkeys(("shared", "leaked"), SHARE)


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
    answered = not isinstance(prediction, Unreadable)
    if not answered or size(prediction) != size(expected):
        return Outcome(grid=False, size=False, cells=0.0, answered=answered)
    right = [
        cell == wanted
        for row, wanted_row in zip(prediction, expected, strict=True)
        for cell, wanted in zip(row, wanted_row, strict=True)
    ]
    return Outcome(grid=all(right), size=True, cells=sum(right) / len(right), answered=True)


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


def vote_at_k(predictions: Sequence[Grid | Unreadable], expected: Grid, k: int) -> bool:
    """Whether the expected grid is among the k that got most votes."""
    return best_of_k([grid for grid, _ in vote(predictions)], expected, k)


# --- observations -----------------------------------------------------------------------------------


def vocabulary(bet: ArcBet) -> Vocabulary:
    """What `observe` is going to find; docs/arc.md explains the quantities."""
    asked = {part: frozenset(arms_asked(part, bet)) for part in SETS}
    in_depth = asked["test"] & {*IN_DEPTH}
    return Vocabulary(
        arms=(*arms_asked("train", bet), COUNTING, *asked["test"] & {TEST_TIME}),
        questions={
            **{part: Question(asked[part], _ANSWERED, table=part) for part in SETS},
            "unseen": Question(asked["train"], _ANSWERED, table="unseen"),
            VIEWS: Question(in_depth, _IN_VIEWS, table="test"),
            **{f"tasks.{part}": Question(frozenset(), _OF_TASKS, table=part) for part in UNSEEN},
            "counting": Question(frozenset((BASE, COUNTING)), {"counted": SHARE}, table="counting"),
        },
        parameters=bet.parameters,
    )


def observe(replies: Replies) -> Iterator[Observation]:
    """Everything that was asked."""
    bet = replies.bet
    everywhere = arms_asked("train", bet)
    for part in SETS:
        for model in models(arms_asked(part, bet), bet):
            answered = ((i.task.id, _answered(replies, model, i)) for i in replies.of(part))
            for one in _observations(part, model, answered):
                yield one
                if part in UNSEEN and one.arm in everywhere:
                    yield replace(one, question="unseen")
    for model in models((arm for arm in arms_asked("test", bet) if arm in IN_DEPTH), bet):
        in_views = ((i.task.id, _in_views(replies, model, i)) for i in replies.of("test"))
        yield from _observations(VIEWS, model, in_views)
    train = [item.task for item in replies.of("train")]
    for part in UNSEEN:
        tasks = {item.task.id: item.task for item in replies.of(part)}
        sharing = {leak.task for leak in shared(tasks.values(), train)}
        leaking = sharing if bet.sets.leakage != "allow" else set()
        found = ((task, {"shared": task in sharing, "leaked": task in leaking}) for task in tasks)
        yield from _observations(f"tasks.{part}", ("", 1), found)
    for model in models((BASE, COUNTING), bet):
        counted = ((row, {"counted": right}) for row, right in replies.counted(model).items())
        yield from _observations("counting", model, counted)


def _observations(
    question: str, model: Model, found: Iterable[tuple[str, Mapping[str, float | Range]]]
) -> Iterator[Observation]:
    """Of rows with their quantities; a task with several test inputs counts with their mean."""
    ranges: defaultdict[tuple[str, str], list[Range]] = defaultdict(list)
    for row, worth in found:
        for quantity, value in worth.items():
            known = value if isinstance(value, tuple) else (float(value), float(value))
            ranges[row, quantity].append(known)
    for (row, quantity), known in ranges.items():
        low, high = (sum(ends) / len(ends) for ends in zip(*known, strict=True))
        yield Observation(
            arm=model[0],
            replicate=model[1],
            question=question,
            draw=1,
            row=row,
            part=0,
            cluster=row,
            quantity=quantity,
            candidate="",
            low=low,
            high=high,
        )


def _answered(replies: Replies, model: Model, item: ArcItem) -> dict[str, float | Range]:
    """What the samples, the greedy answer and the right one's probability are worth."""
    sampled = replies.samples(model, item)
    right = sum(reply == item.expected for reply in sampled)
    greedy = outcome(replies.greedy(model, item), item.expected)
    total, n_tokens = replies.log_probability(model, item)
    return {
        "pass_at_k": pass_at_k(len(sampled), right, replies.bet.prediction.k),
        "pass_at_1": pass_at_k(len(sampled), right, 1),
        "greedy": greedy.grid,
        "size": greedy.size,
        "cells": greedy.cells,
        "unanswered": not greedy.answered,
        "loss": (-total.high / n_tokens, -total.low / n_tokens),
    }


def _in_views(replies: Replies, model: Model, item: ArcItem) -> dict[str, float | Range]:
    """What the answers under augmentation are worth; the last two are ceilings, not attempts."""
    k = replies.bet.prediction.k
    augmented = replies.augmented(model, item)
    among_candidates = item.expected in replies.candidates(model, item)
    ranked = replies.ranked(model, item)
    # Not ranked, the right one may or may not be among the first.
    unknown = (0.0, float(among_candidates))
    return {
        "vote": vote_at_k(augmented, item.expected, k),
        "experts": unknown if ranked is None else best_of_k(ranked, item.expected, k),
        "any_view": item.expected in augmented,
        "any_candidate": among_candidates,
    }
