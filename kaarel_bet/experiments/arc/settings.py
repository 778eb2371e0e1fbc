"""The ARC bet as settings; kaarel_bet/bets/arc.yaml has every default and says what each is for.

A null of config.yaml takes the key away, so that what may be null is null where it is not given.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from backends.schema import Count, Positive, Share, Strict
from kaarel_bet.bet.schema import BetBase
from kaarel_bet.experiments.arc.grids import Encoding


class SetSettings(Strict):
    """Where the tasks of one set come from, and how many they are (None: all that fit)."""

    source: Annotated[str, Field(min_length=1)]
    n_tasks: Positive | None = None


class SetsSettings(Strict):
    """The three sets of tasks."""

    train: SetSettings
    other: SetSettings
    test: SetSettings
    choose: Literal["smallest", "random"]
    leakage: Literal["refuse", "drop", "allow"]

    @model_validator(mode="after")
    def _all_goes_to_one(self) -> Self:
        sets = (self.train, self.other, self.test)
        for one in sets:
            if one.n_tasks is None and sum(s.source == one.source for s in sets) > 1:
                raise ValueError(
                    f"several sets are drawn from {one.source}: each needs its n_tasks"
                )
        return self


class AugmentationSettings(Strict):
    """What the augmented arms are trained on, instead of the tasks themselves."""

    symmetries: bool
    exchange: bool
    colours: bool
    keep_background: bool
    order: bool
    variants: Positive | None = None


class CountingSettings(Strict):
    """The arm that learns to count before it sees a task."""

    n_examples: Positive
    n_test: Positive
    max_side: Annotated[int, Field(ge=3, le=30)]


class TestTimeSettings(Strict):
    """Fine-tuning on the examples of the test tasks themselves, leaving out one at a time."""

    adapters: Literal["none", "one", "per_task"]
    variants: Positive


class PredictionSettings(Strict):
    """How answers are had from a model."""

    k: Positive
    n_samples: Positive
    temperature: Annotated[float, Field(gt=0)]
    augmentations: Annotated[int, Field(ge=1, le=64)]
    search: Share | None = None
    max_candidates: Positive

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if self.n_samples < self.k:
            raise ValueError(f"n_samples: {self.n_samples} are too few for pass@{self.k}")
        return self


class ArcBet(BetBase):
    """A bet whose data and answers are made by this package."""

    sets: SetsSettings
    encoding: Encoding
    max_tokens: Positive
    augmentation: AugmentationSettings
    counting: CountingSettings
    test_time: TestTimeSettings
    prediction: PredictionSettings
    n_pictured: Count
