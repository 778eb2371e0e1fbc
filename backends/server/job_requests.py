"""The request that creates a fine-tuning job, with the service's ranges.

Unknown arguments are refused, as the service does, so that none is silently without effect.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backends.server.metadata import Metadata

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Request(BaseModel):
    """A body of JSON, of which nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Hyperparameters(Request):
    """What is asked of the training; "auto" leaves it to the server."""

    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0, le=1000)] = "auto"


class Supervised(Request):
    """The supervised method's settings."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Request):
    """How to train: supervised is the only way here."""

    type: Literal["supervised"]
    supervised: Supervised = Supervised()


class JobRequest(Request):
    """POST /v1/fine_tuning/jobs"""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Seed | None = None
    metadata: Metadata | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def wanted(self) -> Hyperparameters:
        """The hyper-parameters, from the place that is not deprecated if both are given."""
        if self.method is not None:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()
