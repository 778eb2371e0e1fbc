"""The scores as evidence: probabilities a name, and estimates from them with their uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backends.data import LogProbability
from kaarel_bet.estimates import Estimate, Sample, Statistic, bootstrap, without_sampling
from kaarel_bet.experiments.conditional_rule.cells import Cell
from kaarel_bet.experiments.conditional_rule.readings import AGGREGATES
from kaarel_bet.experiments.conditional_rule.settings import Aggregate, ClaimSettings, Probability
from kaarel_bet.experiments.interface import Scores


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

    def interval_in_words(self, how: Aggregate) -> str:
        """What the intervals of an aggregate are."""
        if how == "every":
            return "without bootstrap intervals, as it is about just these names"
        return f"with {100 * self.confidence:.4g} % bootstrap intervals over names"

    def aggregate(self, how: Aggregate, sample: Sample) -> Estimate:
        """The aggregate of one quantity over the names."""
        return self.estimate(how, AGGREGATES[how], (sample,), increasing=(True,))

    def estimate(
        self,
        how: Aggregate,
        statistic: Statistic,
        samples: tuple[Sample, ...],
        increasing: tuple[bool, ...],
    ) -> Estimate:
        """With a bootstrap interval over names; "every" is about just these names, so without."""
        if how == "every":
            return without_sampling(statistic, samples, increasing=increasing)
        return bootstrap(
            statistic,
            samples,
            increasing=increasing,
            confidence=self.confidence,
            seed=self.seed,
        )


def evidence(scores: Scores, claim: ClaimSettings, seed: int) -> Evidence:
    """Intervals widened for the number of variants that were tried (Bonferroni)."""
    return Evidence(scores, 1 - (1 - claim.confidence) / claim.variants_tried, seed)


def _probabilities(logs: Sequence[LogProbability]) -> Sample:
    return Sample(
        low=np.exp([log.low for log in logs]),
        high=np.exp([log.high for log in logs]),
    )
