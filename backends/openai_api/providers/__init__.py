"""Services that speak this wire with differences: a profile each, by their public documents (2026-11).

None of them was called. What a profile does not say is as OpenAI has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from backends.openai_api.settings import JobSettings

Name = Literal["openai", "azure", "crusoe", "nebius"]
Rate = Literal["learning_rate_multiplier", "learning_rate"]
RATES: tuple[Rate, Rate] = ("learning_rate_multiplier", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """What is different at one service.

    `address` is where it is, None where each user has an address of their own; `asked_at` is where models
    are asked, if not there. `deploying` says how a tuned model comes to be asked at all, None where it can
    be at once; `names_models` whether a job says what the model is called. `rates` are the names of the
    learning rates that jobs take, a multiplier or an absolute one; `lora` has the names of rank, alpha and
    dropout, and `always` what each job is to say. Of `batch_sizes`, if any, a job has one.
    """

    address: str | None = None
    asked_at: str | None = None
    deploying: str | None = None
    names_models: bool = True
    rates: tuple[Rate, ...] = ("learning_rate_multiplier",)
    lora: Mapping[str, str] = field(default_factory=dict[str, str])
    always: Mapping[str, Any] = field(default_factory=dict[str, Any])
    batch_sizes: tuple[int, ...] = ()
    takes_auto: bool = True
    takes_metadata: bool = True
    takes_texts: bool = True
    takes_prompt_loss: bool = True
    takes_preferences: bool = True
    in_method: bool = True

    def hyperparameters(self, job: "JobSettings") -> dict[str, Any]:
        """The settings of a job in the service's words."""
        said = job.model_dump(include={"n_epochs", "batch_size", *self.rates})
        if not self.takes_auto:
            said = {name: value for name, value in said.items() if value != "auto"}
        lora = job.lora.model_dump(exclude_none=True)
        return said | dict(self.always) | {self.lora[name]: value for name, value in lora.items()}

    def shaped(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request for a job, in OpenAI's form, as the service takes it."""
        left_out = set[str]() if self.takes_metadata else {"metadata"}
        if self.in_method:
            return {name: value for name, value in request.items() if name not in left_out}
        moved = {"hyperparameters": hyperparameters_of(request)}
        return {k: v for k, v in request.items() if k not in left_out | {"method"}} | moved

    def refused(self, job: "JobSettings") -> str | None:
        """Which of a job's settings the service does not have, in words; None where it has them all."""
        for name in RATES:
            if name not in self.rates and getattr(job, name) != "auto":
                return f"job.{name}: it takes {' and '.join(self.rates)}"
        for name in job.lora.model_dump(exclude_none=True):
            if name not in self.lora:
                return f"job.lora.{name}: it takes {', '.join(self.lora) or 'none of LoRA'}"
        if self.batch_sizes and job.batch_size not in ("auto", *self.batch_sizes):
            sizes = ", ".join(map(str, self.batch_sizes))
            return f"job.batch_size: it takes {sizes}, or auto"
        return None


def hyperparameters_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a request for a job, wherever it has them."""
    method = request.get("method")
    return (
        request["hyperparameters"] if method is None else method[method["type"]]["hyperparameters"]
    )


def provider(name: Name) -> Provider:
    """The profile of a service; `openai` is OpenAI and whoever does as OpenAI does."""
    if name == "openai":
        return Provider()
    return import_module(f"{__name__}.{name}").PROFILE
