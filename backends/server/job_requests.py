"""The request that creates a fine-tuning job, with the service's ranges."""

from typing import Annotated, Any, Literal

from pydantic import Field

from backends.server.metadata import Metadata
from backends.server.requests import Request

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Hyperparameters(Request):
    """What is asked of the training; "auto" leaves it to the server."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Literal["auto"] = "auto"
    # Beyond the hosted service of today, by the name that its first fine-tunes had for it.
    prompt_loss_weight: Literal[0, 1] = 0


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
