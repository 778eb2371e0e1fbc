"""The scores as evidence: correctness of every answer, and estimates with both sources of variance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backends.data import ScoringResult
from kaarel_bet.estimates import Estimate, Floats, Sample, crossed_bootstrap
from kaarel_bet.experiments.interface import Scores
from kaarel_bet.experiments.inverse_scaling.items import Item
from kaarel_bet.experiments.inverse_scaling.outcomes import correctness
from kaarel_bet.experiments.inverse_scaling.plan import Condition, Kind, Run, conditions
from kaarel_bet.experiments.inverse_scaling.settings import InverseScalingSettings, Metric


@dataclass(frozen=True)
class Evidence:
    """The scores, the items that they are about, and how estimates are made from them."""

    scores: Scores
    settings: InverseScalingSettings
    seed: int

    @cached_property
    def items(self) -> dict[str, Item]:
        """Id -> item, all of them."""
        found = [Item.model_validate(record, strict=False) for record in self.scores.items]
        return {item.id: item for item in found}

    @cached_property
    def conditions(self) -> list[Condition]:
        """What is compared."""
        return conditions(self.settings)

    def condition(self, kind: Kind) -> Condition:
        """The condition of this kind, trained on most rows."""
        return max((c for c in self.conditions if c.kind == kind), key=lambda c: c.size)

    def part(self, part: str) -> list[Item]:
        """The items of one part."""
        return [item for item in self.items.values() if item.part == part]

    def answered(self, run: Run) -> list[tuple[ScoringResult, Item]]:
        """The results of a run and the items they are of, in the order of the queries."""
        results = self.scores.scoring[run.arm][run.evaluation]
        return [(result, self.items[result.id]) for result in results]

    def correct(self, runs: Sequence[Run], metric: Metric, group: str | None = None) -> Sample:
        """Correctness of (runs, items); of one group's items, if it is named."""
        ends = np.array(
            [
                [
                    correctness(result, item, metric)
                    for result, item in self.answered(run)
                    if group is None or item.group == group
                ]
                for run in runs
            ]
        )
        return Sample(low=ends[..., 0], high=ends[..., 1])

    def estimate(self, statistic: Callable[..., Floats], *samples: Sample) -> Estimate:
        """A statistic of the samples' means, with an interval over items and runs."""
        return crossed_bootstrap(
            statistic, samples, confidence=self.settings.claim.confidence, seed=self.seed
        )

    def accuracy(
        self, runs: Sequence[Run], metric: Metric | None = None, group: str | None = None
    ) -> Estimate:
        """The mean accuracy of the runs, by the claim's metric unless another is named."""
        chosen = metric or self.settings.claim.metric
        return self.estimate(lambda mean: mean, self.correct(runs, chosen, group))
