"""Settings of the local backend; config.yaml says what each is for."""

import datetime
from typing import Annotated, Literal, Self

from pydantic import Field

from backends.schema import Positive, Strict

DtypeName = Literal["auto", "float32", "bfloat16"]
PrefixSharing = Literal["auto", "on", "off"]
Grouping = Literal["none", "prefix", "length"]
Sharding = Literal["none", "fsdp"]
Offloading = Literal["none", "cpu"]
Quantization = Literal["none", "nf4"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class LoraSettings(Strict):
    """The adapter (LoRA, https://arxiv.org/abs/2106.09685), as PEFT's LoraConfig takes it."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Fraction = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class TrainingSettings(Strict):
    """Optimisation with AdamW (https://arxiv.org/abs/1711.05101).

    `dpo_beta` is of preferences alone (https://arxiv.org/abs/2305.18290): the larger, the nearer to the
    reference.
    """

    epochs: Positive = 12
    batch_size: Positive = 8
    micro_batches: Positive = 1
    group_by: Grouping = "none"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    dpo_beta: Annotated[float, Field(gt=0)] = 0.1
    dtype: DtypeName = "auto"
    gradient_checkpointing: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0


class ScoringSettings(Strict):
    """How scores are computed."""

    dtype: DtypeName = "float32"
    batch_tokens: Positive = 512


class GenerationSettings(Strict):
    """How texts are continued, their tokens' log-probabilities included; None is as scoring does."""

    dtype: DtypeName | None = None


class LocalSettings(Strict):
    """The local backend."""

    model: Annotated[str, Field(min_length=1)] = "embedded:smollm2-135m-instruct"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    quantize: Quantization = "none"
    shard: Sharding = "none"
    offload: Offloading = "none"
    processes: Positive | Literal["auto"] = "auto"
    prefix_sharing: PrefixSharing = "auto"
    workers: Positive | Literal["auto"] = "auto"
    one_pass: bool = False
    date: Annotated[datetime.date, Field(strict=False)] | Literal["auto"] = "auto"
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    scoring: ScoringSettings = ScoringSettings()
    generation: GenerationSettings = GenerationSettings()

    def of_day(self, day: datetime.date) -> Self:
        """These, with that day for chat templates that write the date, where none is set."""
        return self if self.date != "auto" else self.model_copy(update={"date": day})

    @property
    def day(self) -> datetime.date | None:
        """The day that is set, None where it is that of the work."""
        return None if self.date == "auto" else self.date

    @property
    def generation_dtype(self) -> DtypeName:
        """In which texts are continued."""
        return self.generation.dtype or self.scoring.dtype
