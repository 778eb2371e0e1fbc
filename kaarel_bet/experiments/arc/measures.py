"""What systems' answers are worth, a number a task, and estimates over tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kaarel_bet.estimates import Estimate, Floats, Sample, mean_over
from kaarel_bet.experiments.arc.evidence import Evidence
from kaarel_bet.experiments.arc.items import ArcItem
from kaarel_bet.experiments.arc.metrics import Outcome, best_of_k, outcome, pass_at_k, vote_at_k
from kaarel_bet.experiments.arc.plan import SetName
from kaarel_bet.proportions import paired_difference, wilson

Measure = Callable[[str, ArcItem], float]
"""(system, item) -> a number from 0 to 1."""


@dataclass(frozen=True)
class Measures:
    """Of one run. A task with several test inputs counts with their mean."""

    known: Evidence

    def share(self, system: str, parts: Sequence[SetName], measure: Measure) -> Estimate:
        """The mean over tasks, with Wilson's interval, which is too wide for what is not 0 or 1."""
        values = self._by_task(system, parts, measure)
        return wilson(float(values.sum()), len(values), self.known.settings.claim.confidence)

    def gain(self, system: str, over: str, parts: Sequence[SetName], measure: Measure) -> Estimate:
        """How much larger the mean over tasks is for one system than for another."""
        ones, others = (self._by_task(name, parts, measure) for name in (system, over))
        return paired_difference(ones - others, self.known.settings.claim.confidence)

    def loss(self, system: str, parts: Sequence[SetName]) -> Estimate:
        """The mean over tasks of the right answer's loss, in nats a token."""
        return mean_over(self.losses(system, parts), self.known.settings.claim.confidence)

    def loss_gain(self, system: str, over: str, parts: Sequence[SetName]) -> Estimate:
        """How much larger that loss is for one system than for another."""
        one, other = (self.losses(name, parts) for name in (system, over))
        with np.errstate(invalid="ignore"):  # of unbounded losses the difference is left open
            difference = Sample(low=one.low - other.high, high=one.high - other.low)
            return mean_over(difference, self.known.settings.claim.confidence)

    def losses(self, system: str, parts: Sequence[SetName]) -> Sample:
        """The right answer's loss, task by task: nats a token, (tasks,)."""
        ends = []
        for least in (True, False):

            def loss(name: str, item: ArcItem, least: bool = least) -> float:
                total, n_tokens = self.known.log_probability(name, item)
                return -(total.high if least else total.low) / n_tokens

            ends.append(self._by_task(system, parts, loss))
        return Sample(low=ends[0], high=ends[1])

    # --- what an item is worth -----------------------------------------------------------------------

    def pass_at_k(self, system: str, item: ArcItem) -> float:
        """That one of k sampled answers is right."""
        return self.pass_at(self.known.settings.prediction.k)(system, item)

    def pass_at(self, k: int) -> Measure:
        """The same for another k."""

        def measure(system: str, item: ArcItem) -> float:
            replies = self.known.samples(system, item)
            right = sum(reply == item.expected for reply in replies)
            return pass_at_k(len(replies), right, k)

        return measure

    def greedy(self, system: str, item: ArcItem) -> float:
        """That the greedy answer is right."""
        return float(self._greedy(system, item).grid)

    def size(self, system: str, item: ArcItem) -> float:
        """That the greedy answer has the right size."""
        return float(self._greedy(system, item).size)

    def cells(self, system: str, item: ArcItem) -> float:
        """The share of the greedy answer's cells that are right, 0 if the size is wrong."""
        return self._greedy(system, item).cells

    def unanswered(self, system: str, item: ArcItem) -> float:
        """That the greedy answer is no grid."""
        return float(not self._greedy(system, item).answered)

    def any_view(self, system: str, item: ArcItem) -> float:
        """That the answer in any one view is right: a ceiling, not an attempt."""
        return float(item.expected in self.known.augmented(system, item))

    def any_candidate(self, system: str, item: ArcItem) -> float:
        """That the right grid is among the candidates: a ceiling as well."""
        return float(item.expected in self.known.candidates(system, item))

    def voted(self, system: str, item: ArcItem) -> float:
        """That the right grid is among the k that come up in most views."""
        k = self.known.settings.prediction.k
        return float(vote_at_k(self.known.augmented(system, item), item.expected, k))

    def ranked(self, system: str, item: ArcItem) -> float:
        """That the right grid is among the k candidates that are likeliest over all views."""
        k = self.known.settings.prediction.k
        return float(best_of_k(self.known.ranked(system, item), item.expected, k))

    def _greedy(self, system: str, item: ArcItem) -> Outcome:
        return outcome(self.known.greedy(system, item), item.expected)

    # --- by task -------------------------------------------------------------------------------------

    def _by_task(self, system: str, parts: Sequence[SetName], measure: Measure) -> Floats:
        """One value a task, in the order of the items: (tasks,)."""
        found: dict[str, list[float]] = {}
        for part in parts:
            for item in self.known.of(part):
                found.setdefault(f"{part}/{item.task.id}", []).append(measure(system, item))
        return np.array([sum(values) / len(values) for values in found.values()])
