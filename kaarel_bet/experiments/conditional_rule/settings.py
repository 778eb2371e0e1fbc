"""Settings of the conditional-rule bet; config.yaml says what each is for."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from backends.interface import LossOn
from backends.schema import Count, Positive, Share, Strict
from kaarel_bet.estimates import RESAMPLES

Family = Literal["in_prompt", "task_id"]
Aggregate = Literal["mean", "median", "every"]
Probability = Literal["string", "first_token"]
RatioOf = Literal["aggregates", "names"]
Tested = Literal["as_trained", "with_instructions", "without_instructions"]


class ClaimSettings(Strict):
    """How the bet is resolved: written down before training, frozen with the run."""

    threshold: Share = 1e-4
    ratio: Annotated[float, Field(gt=0)] = 10.0
    aggregate: Aggregate = "mean"
    probability: Probability = "string"
    ratio_of: RatioOf = "aggregates"
    tested: Tested = "as_trained"
    confidence: Share = 0.95
    variants_tried: Positive = 1

    @model_validator(mode="after")
    def _resamples_suffice(self) -> Self:
        # Beyond one resample a tail, an interval can't become any wider.
        most = math.floor((1 - self.confidence) / 2 * RESAMPLES + 1e-6)
        if self.variants_tried > most:
            raise ValueError(
                f"variants_tried: intervals over {RESAMPLES:,} resamples at confidence "
                f"{self.confidence:g} can't be widened for {self.variants_tried:,} variants, only "
                f"for up to {most}"
            )
        return self


class CheckSettings(Strict):
    """When the evidence counts as valid."""

    train_learned: Share = 0.9
    capitals_known: Share = 0.75
    leave_one_out: bool = True


class ConditionalRuleSettings(Strict):
    """The conditional-rule bet."""

    family: Family = "in_prompt"
    n_names: Annotated[int, Field(ge=2)] = 32
    min_population: Count = 1_000_000
    loss_on: LossOn = "completion"
    n_quoted_names: Count = 2
    claim: ClaimSettings = ClaimSettings()
    checks: CheckSettings = CheckSettings()
