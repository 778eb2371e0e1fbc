"""Settings of the OpenAI backend; config.yaml says what each is for. The key is never one of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from backends.openai_api.providers import Name, provider
from backends.schema import Strict

Method = Literal["auto", "echo", "top"]


class LoraJobSettings(Strict):
    """LoRA, where the service lets it be chosen."""

    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[int, Field(ge=1)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


class JobSettings(Strict):
    """A job's hyper-parameters, in the ranges of the wire format; "auto" leaves one to the service."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    lora: LoraJobSettings = LoraJobSettings()
    dpo_beta: Annotated[float, Field(gt=0, le=2)] | Literal["auto"] = "auto"
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    poll_seconds: Annotated[float, Field(gt=0)] = 15.0
    at_once: Annotated[int, Field(ge=1, le=100)] = 1


class TailSettings(Strict):
    """Biased sampling for what the most likely tokens don't show."""

    sample: bool = False
    # More than the samples that look for the bias, which must not be counted as well.
    n_samples: Annotated[int, Field(ge=16, le=1024)] = 128


class ScoringSettings(Strict):
    """How candidates are scored over the wire."""

    method: Method = "auto"
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 50
    batch: bool = False
    tail: TailSettings = TailSettings()

    @model_validator(mode="after")
    def _batches_do_not_search(self) -> Self:
        if self.batch and self.tail.sample:
            raise ValueError(
                "biased sampling asks step by step: set batch or tail.sample, not both"
            )
        return self


class OpenAISettings(Strict):
    """The OpenAI backend."""

    model: Annotated[str, Field(min_length=1)] = "smollm2-135m-instruct"
    provider: Name = "openai"
    base_url: str | None = None
    inference_url: str | None = None
    deployments: dict[str, str] = Field(default_factory=dict[str, str])
    organization: str | None = None
    project: str | None = None
    # Of the environment variable; what a key looks like is refused, so that none is ever written here.
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] = "OPENAI_API_KEY"
    tokenizer: Annotated[str, Field(min_length=1)] = "auto"
    job: JobSettings = JobSettings()
    scoring: ScoringSettings = ScoringSettings()

    @model_validator(mode="after")
    def _as_the_provider_has_it(self) -> Self:
        if refused := provider(self.provider).refused(self.job):
            raise ValueError(f"{refused} ({self.provider})")
        return self

    @field_validator("base_url", "inference_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("write it as http://host/v1 or https://host/v1")
        if value is not None and "@" in value.split("/")[2]:
            raise ValueError("leave user names and passwords out; the key is in the environment")
        return value
