"""Settings of the Inverse Scaling experiment; config.yaml says what each is for."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from backends.interface import LossOn
from backends.schema import Count, Positive, Share, Strict

Task = Literal[
    "hindsight_neglect_10shot",
    "redefine_math",
    "quote_repetition",
    "neqa",
    "winobias_antistereotype",
    "into_the_unknown",
    "memo_trap",
    "modus_tollens",
    "pattern_matching_suppression",
    "repetitive_algebra",
    "sig_figs",
]
SplitBy = Literal["random", "template", "number", "task"]
Form = Literal["text", "chat"]
Metric = Literal["acc", "acc_norm"]
Source = Annotated[str, Field(min_length=1)]


class SplitSettings(Strict):
    """Which rows are tested and which may be trained on."""

    by: SplitBy = "random"
    n_test: Annotated[int, Field(ge=2)] = 200
    held_out_templates: Positive = 3
    train_task: Task | None = None
    train_data: Source = "auto"

    @model_validator(mode="after")
    def _a_task_to_train_on(self) -> Self:
        if (self.by == "task") != (self.train_task is not None):
            raise ValueError("train_task: belongs to by: task, and by: task needs it")
        if self.train_task is None and self.train_data != "auto":
            raise ValueError("train_data: belongs to train_task; without one nothing would be read")
        return self


class FewShotSettings(Strict):
    """Examples in the prompt."""

    shots: Positive = 5
    choose: Literal["fixed", "per_item", "first"] = "fixed"
    draws: Positive = 2

    @model_validator(mode="after")
    def _draws_that_differ(self) -> Self:
        if self.choose == "first" and self.draws > 1:
            raise ValueError("draws: the first rows are the same in every draw; set it to 1")
        return self


class FineTuneSettings(Strict):
    """What is fine-tuned on."""

    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (16, 64)
    seeds: Positive = 2
    placebo: bool = True
    loss_on: LossOn = "completion"

    @model_validator(mode="after")
    def _different_sizes(self) -> Self:
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError("sizes: one stands there twice")
        return self


class TransferSettings(Strict):
    """Trained on one template, tested on all; and trained arms tested on other tasks."""

    templates: Count = 3
    size: Positive = 24
    tasks: dict[Task, Source] = Field(default_factory=dict)


class ClaimSettings(Strict):
    """What "finetuning-proof" means: written down before training, frozen with the run."""

    gain: Share = 0.5
    advantage: Share = 0.25
    metric: Metric = "acc"
    confidence: Share = 0.95


class CheckSettings(Strict):
    """When the evidence counts as valid."""

    left_to_gain: Share = 0.05
    trained: Share = 0.8
    n_training_rows: Positive = 50


class Reference(Strict):
    """Accuracies that somebody else found, in percent."""

    zero_shot: Annotated[float, Field(ge=0, le=100)]
    few_shot: Annotated[float, Field(ge=0, le=100)]
    fine_tuned: Annotated[float, Field(ge=0, le=100)]


class InverseScalingSettings(Strict):
    """The Inverse Scaling experiment."""

    task: Task = "redefine_math"
    data: Source = "auto"
    n_items: Positive = 600
    form: Form = "text"
    n_forgetting: Count = 60
    split: SplitSettings = SplitSettings()
    few_shot: FewShotSettings = FewShotSettings()
    fine_tune: FineTuneSettings = FineTuneSettings()
    transfer: TransferSettings = TransferSettings()
    claim: ClaimSettings = ClaimSettings()
    checks: CheckSettings = CheckSettings()
    reference: Reference | None = None
