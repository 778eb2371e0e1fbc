"""What fine-tuning and few-shot prompting gain, as shares of what was left to gain."""

from dataclasses import dataclass

import numpy as np

from kaarel_bet.estimates import Estimate, Floats
from kaarel_bet.experiments.inverse_scaling.evidence import Evidence
from kaarel_bet.experiments.inverse_scaling.plan import Condition


@dataclass(frozen=True)
class Gains:
    """Of the largest training set and of the few-shot prompts, and how far the first is ahead.

    Ahead of the better of few-shot and zero-shot prompting: examples that do harm are no reason to train.
    """

    fine_tuned: Estimate
    few_shot: Estimate
    lead: Estimate


def gains(known: Evidence) -> Gains:
    """By the claim's metric."""
    metric = known.settings.claim.metric
    zero, tuned, shots = (
        known.correct(known.condition(kind).runs, metric)
        for kind in ("zero_shot", "fine_tuned", "few_shot")
    )

    def lead(
        fine_tuned: Floats, few_shot: Floats, zero_shot: Floats, zero_shot_below: Floats
    ) -> Floats:
        ahead = fine_tuned - np.maximum(few_shot, zero_shot)
        return ahead / _left_to_gain(zero_shot_below, zero.low.shape[-1])

    return Gains(
        fine_tuned=gain_of(known, known.condition("fine_tuned")),
        few_shot=gain_of(known, known.condition("few_shot")),
        # Above and below the line apart: in zero-shot accuracy as a whole the lead is not monotone.
        lead=known.estimate(lead, tuned, shots, zero, zero),
    )


def gain_of(known: Evidence, condition: Condition) -> Estimate:
    """(accuracy - zero-shot accuracy) / (1 - zero-shot accuracy)."""
    metric = known.settings.claim.metric
    zero = known.correct(known.condition("zero_shot").runs, metric)

    def gain(accuracy: Floats, zero_shot: Floats) -> Floats:
        return (accuracy - zero_shot) / _left_to_gain(zero_shot, zero.low.shape[-1])

    return known.estimate(gain, known.correct(condition.runs, metric), zero)


def _left_to_gain(zero_shot: Floats, n_items: int) -> Floats:
    """At least half an item: where nothing is left, shares of it are not numbers."""
    return np.maximum(1 - zero_shot, 0.5 / n_items)
