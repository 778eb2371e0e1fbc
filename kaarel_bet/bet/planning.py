"""What a bet can show, before anything is trained: how far off its thresholds an effect has to be.

The claims are judged on made-up observations of the declared rows, arms and trainings, so that what is told
is what the shipped intervals do. How much rows and trainings differ is supposed, as nothing is known yet.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from backends.data import (
    CandidateScore,
    GenerationQuery,
    GenerationResult,
    LogProbability,
    ScoringQuery,
    ScoringResult,
    SearchResult,
)
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.evaluation import range_of
from kaarel_bet.bet.observations import Observation, Observations, Vocabulary
from kaarel_bet.experiments.interface import Answers, Asked, Design, Evaluation, Experiment
from kaarel_bet.manifest import ArmEntry

ROWS, TRAININGS, REST = 2.0, 0.5, 0.3
"""Supposed standard deviations of log-probabilities, in nats; of losses a quarter of each."""

SUPPOSED = (
    f"supposing that rows differ by {ROWS:g} nats and trainings by {TRAININGS:g} (standard deviations), "
    "and that rights and wrongs are even"
)

_DRAWS = 5
"""Made-up runs, whose half-widths are averaged."""


@dataclass(frozen=True)
class Detectable:
    """How far a criterion's quantity has to be from its threshold to be told from it."""

    criterion: str
    threshold: float
    distance: float
    is_factor: bool
    range: tuple[float, float]

    @property
    def words(self) -> str:
        """In a line."""
        if not math.isfinite(self.distance):
            return f"{self.criterion}: no effect can be told from {self.threshold:g}, however large"
        far = f"a factor of {self.distance:.2g}" if self.is_factor else f"{self.distance:.2g}"
        return f"{self.criterion}: can be told from {self.threshold:g} if it is {far} away or more"

    @property
    def warning(self) -> str | None:
        """Whether it can hardly be decided one way."""
        up = self.threshold * self.distance if self.is_factor else self.threshold + self.distance
        down = self.threshold / self.distance if self.is_factor else self.threshold - self.distance
        missing = [f"above {up:.2g}"] * (up > self.range[1]) + [f"below {down:.2g}"] * (
            down < self.range[0]
        )
        if not missing:
            return None
        least, most = self.range
        return (
            f"{self.criterion} would have to be {' or '.join(missing)} to be decided so, and lies between "
            f"{least:g} and {most:g}: ask more rows or train more often"
        )


def detectable(judge: Judge) -> list[Detectable]:
    """Of every criterion, by made-up observations of what the judge has observations of."""
    structure = list(judge.observations.all())
    found: dict[str, list[Detectable]] = {}
    for number in range(_DRAWS):
        made = Observations(_made_up(structure, judge.vocabulary, number))
        for one in _distances(replace(judge, observations=made)):
            found.setdefault(one.criterion, []).append(one)
    return [
        replace(draws[0], distance=fmean(draw.distance for draw in draws))
        for draws in found.values()
    ]


def _distances(judge: Judge) -> Iterator[Detectable]:
    for criterion, tail in judge.agreed():
        half, is_factor = judge.evaluator.half_width(criterion.node, tail)
        distance = math.exp(half) if is_factor else half
        yield Detectable(
            criterion.text, criterion.threshold, distance, is_factor, range_of(criterion.node)
        )


def _made_up(
    structure: Iterable[Observation], known: Vocabulary, number: int
) -> Iterator[Observation]:
    normal = lambda *key: random.Random(repr((number, *key))).gauss()  # noqa: E731
    for one in structure:
        least, most = known.questions[one.question].quantities[one.quantity]
        name = (one.question, one.quantity, one.candidate)
        whose = (one.arm, one.replicate, one.draw)
        own = normal(*name, one.row, one.part, *whose)
        if math.isfinite(least) and math.isfinite(most):
            value = most if own > 0 else least
        else:
            shift = ROWS * normal(*name, one.cluster) + TRAININGS * normal(*whose) + REST * own
            value = min(-9 + shift, 0) if most == 0 else max(2.5 + shift / 4, 0)
        yield replace(one, low=value, high=value)


# --- what will be observed -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Foreseen:
    """What will be asked once there are answers, and what there will be observations of.

    The answers are made up, as long as they may become and each another; their values mean nothing.
    """

    experiment: Experiment
    answers: Answers
    follow_ups: Sequence[Evaluation]
    judgements: Sequence[Evaluation]

    @cached_property
    def observations(self) -> Observations:
        """Of the answers and of what judges would say."""
        judged = {one.name: {q.id: _nothing(q, "") for q in one.queries} for one in self.judgements}
        return Observations(self.experiment.observe(replace(self.answers, judgements=judged)))


def foresee(experiment: Experiment, design: Design) -> Foreseen:
    """Plays a design through without a model."""
    entries = {arm.name: arm.entry() for arm in design.arms}
    asked: list[Asked] = []
    further, new = list[Evaluation](), list(design.evaluations)
    for _ in range(experiment.rounds + 1):
        asked += [one for evaluation in new for one in _played(evaluation, entries)]
        known = {one.evaluation.name for one in asked}
        follow_ups = experiment.follow_ups(Answers(asked, design.tables))
        new = [one for one in follow_ups if one.name not in known]
        further += new
    answers = Answers(asked, design.tables)
    return Foreseen(experiment, answers, further, experiment.judgements(answers))


def _played(evaluation: Evaluation, entries: Mapping[str, ArmEntry]) -> Iterator[Asked]:
    for name in evaluation.arms:
        results = [_nothing(q, f"{name} {evaluation.name}") for q in evaluation.queries]
        yield Asked(entries[name], evaluation.entry(), results, evaluation.queries)


def _nothing(query: Any, whose: str) -> Any:  # noqa: ANN401
    match query:
        case ScoringQuery():
            score = LogProbability.exact(-1.0)
            candidate = CandidateScore(total=score, first_token=score, n_tokens=1)
            scores = dict.fromkeys(query.candidates, candidate)
            return ScoringResult(id=query.id, candidates=scores, method="none")
        case GenerationQuery():
            filling = " word" * query.max_tokens
            samples = range(query.n_samples)
            texts = tuple(f"{whose} {query.id} {sample}{filling}" for sample in samples)
            return GenerationResult(id=query.id, prompt="", texts=texts)
        case _:
            return SearchResult(id=query.id, completions=())
