"""Settings of the ARC experiment; config.yaml says what each is for."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from backends.schema import Count, Positive, Share, Strict
from kaarel_bet.experiments.arc.encodings import Encoding

Text = Annotated[str, Field(min_length=1)]


class SetSettings(Strict):
    """Where the tasks of one set come from, and how many they are (None: all that fit)."""

    source: Text
    n_tasks: Positive | None = 12


class SetsSettings(Strict):
    """The three sets of tasks."""

    train: SetSettings = SetSettings(source="arc1-training")
    other: SetSettings = SetSettings(source="arc1-evaluation", n_tasks=10)
    test: SetSettings = SetSettings(source="arc1-evaluation", n_tasks=8)
    choose: Literal["smallest", "random"] = "smallest"
    leakage: Literal["refuse", "drop", "allow"] = "drop"

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

    symmetries: bool = True
    exchange: bool = True
    colours: bool = True
    keep_background: bool = False
    order: bool = True
    variants: Positive | None = 2


class CountingSettings(Strict):
    """The arm that learns to count before it sees a task."""

    n_examples: Positive = 48
    n_test: Positive = 24
    max_side: Annotated[int, Field(ge=3, le=30)] = 5


class TestTimeSettings(Strict):
    """Fine-tuning on the examples of the test tasks themselves, leaving out one at a time."""

    adapters: Literal["none", "one", "per_task"] = "one"
    variants: Positive = 1


class PredictionSettings(Strict):
    """How answers are had from a model."""

    k: Positive = 2
    n_samples: Positive = 4
    temperature: Annotated[float, Field(gt=0)] = 0.7
    augmentations: Annotated[int, Field(ge=1, le=64)] = 8
    search: Share | None = 0.1
    max_candidates: Positive = 12

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if self.n_samples < self.k:
            raise ValueError(f"n_samples: {self.n_samples} are too few for pass@{self.k}")
        return self


class ClaimSettings(Strict):
    """What the claims mean: written down before training, frozen with the run."""

    memorised: Share = 0.5
    confidence: Share = 0.95


class CheckSettings(Strict):
    """When the evidence counts as valid."""

    learned: Share = 0.5
    counted: Share = 0.5


class ArcSettings(Strict):
    """The ARC experiment."""

    sets: SetsSettings = SetsSettings()
    encoding: Encoding = "rows"
    max_tokens: Positive = 512
    augmentation: AugmentationSettings = AugmentationSettings()
    counting: CountingSettings = CountingSettings()
    test_time: TestTimeSettings = TestTimeSettings()
    prediction: PredictionSettings = PredictionSettings()
    claim: ClaimSettings = ClaimSettings()
    checks: CheckSettings = CheckSettings()
    n_pictured: Count = 4
