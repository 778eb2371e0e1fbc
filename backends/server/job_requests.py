"""The request that creates a fine-tuning job, with the service's ranges."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from backends.server.bodies import NotOffered, Request
from backends.server.metadata import Metadata

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


Auto = Annotated[Literal["auto"], BeforeValidator(lambda value: "auto" if value is None else value)]


class Hyperparameters(Request):
    """What is asked of the training; "auto" leaves it to the server."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"
    # Beyond the hosted service of today, by the name that its first fine-tunes had for it.
    prompt_loss_weight: Literal[0, 1] | None = 0


class Supervised(Request):
    """The supervised method's settings."""

    hyperparameters: Hyperparameters | None = None


class Method(Request):
    """How to train: supervised is the only way here."""

    type: Literal["supervised"]
    supervised: Supervised | None = None
    # As a job's own method has them.
    dpo: NotOffered = None
    reinforcement: NotOffered = None


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
    integrations: NotOffered = None

    @property
    def wanted(self) -> Hyperparameters:
        """The hyper-parameters, from the place that is not deprecated if both are given."""
        if self.method and self.method.supervised and self.method.supervised.hyperparameters:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()
