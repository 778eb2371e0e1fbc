"""The scores as evidence: probabilities a name, and estimates from them with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backends.data import LogProbability
from kaarel_bet.estimates import (
    Estimate,
    Sample,
    Statistic,
    bootstrap,
    leave_one_out,
    without_sampling,
)
from kaarel_bet.experiments.conditional_rule.cells import Cell
from kaarel_bet.experiments.conditional_rule.settings import Aggregate, ClaimSettings, Probability
from kaarel_bet.experiments.interface import Scores


@dataclass(frozen=True)
class Quantity:
    """A statistic of samples; `increasing` says with which of them it grows."""

    statistic: Statistic
    samples: tuple[Sample, ...]
    increasing: tuple[bool, ...]

    @property
    def parts(self) -> tuple[Statistic, tuple[Sample, ...], tuple[bool, ...]]:
        """All three."""
        return self.statistic, self.samples, self.increasing


@dataclass(frozen=True)
class Evidence:
    """The scores, and how estimates are made from them."""

    scores: Scores
    confidence: float
    seed: int

    def sample(self, arm: str, cell: Cell | str, candidate: str, of: Probability) -> Sample:
        """The probability of a candidate for every name."""
        evaluation = cell if isinstance(cell, str) else cell.name
        pick = self.scores.totals if of == "string" else self.scores.first_tokens
        return _probabilities(pick(arm, evaluation, candidate))

    def names(self, arm: str, cell: Cell) -> list[str]:
        """The names, in the order of the samples."""
        return [result.id for result in self.scores.scoring[arm][cell.name]]

    def interval_in_words(self, how: Aggregate) -> str:
        """What the intervals of an aggregate are."""
        if how == "every":
            return "without bootstrap intervals, as it is about just these names"
        return f"with {100 * self.confidence:.4g} % bootstrap intervals over names"

    def largest_share(
        self, arm: str, cell: Cell, candidate: str, of: Probability
    ) -> tuple[str, float]:
        """The name with the largest probability of a candidate, and its share of all names' sum."""
        values = self.sample(arm, cell, candidate, of).middle
        name = self.names(arm, cell)[int(values.argmax())]
        return name, float(values.max() / values.sum()) if values.any() else 0.0

    def estimate(self, how: Aggregate, quantity: Quantity) -> Estimate:
        """With a bootstrap interval over names; "every" is about just these names, so without."""
        statistic, samples, increasing = quantity.parts
        if how == "every":
            return without_sampling(statistic, samples, increasing=increasing)
        return bootstrap(
            statistic, samples, increasing=increasing, confidence=self.confidence, seed=self.seed
        )

    def leave_one_out(self, quantity: Quantity) -> list[Estimate]:
        """The same without each of the names in turn."""
        statistic, samples, increasing = quantity.parts
        return leave_one_out(
            statistic, samples, increasing=increasing, confidence=self.confidence, seed=self.seed
        )


def evidence(scores: Scores, claim: ClaimSettings, seed: int) -> Evidence:
    """Intervals widened for the number of variants that were tried (Bonferroni)."""
    return Evidence(scores, 1 - (1 - claim.confidence) / claim.variants_tried, seed)


def _probabilities(logs: Sequence[LogProbability]) -> Sample:
    return Sample(
        low=np.exp([log.low for log in logs]),
        high=np.exp([log.high for log in logs]),
    )
