"""The request that creates a fine-tuning job, with the service's ranges."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from backends.data import TrainingMethod
from backends.server.bodies import NotOffered, Refused, Request
from backends.server.metadata import Metadata

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


Auto = Annotated[Literal["auto"], BeforeValidator(lambda value: "auto" if value is None else value)]


class Hyperparameters(Request):
    """What is asked of any training; "auto" leaves it to the server."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Auto = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"


class SupervisedHyperparameters(Hyperparameters):
    """Of the supervised method; `prompt_loss_weight` (loss on prompts too) is no field of the service's."""

    prompt_loss_weight: Literal[0, 1] | None = 0


class DpoHyperparameters(Hyperparameters):
    """Of direct preference optimisation."""

    beta: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"


class Supervised(Request):
    """The supervised method's settings."""

    hyperparameters: SupervisedHyperparameters | None = None


class Dpo(Request):
    """Those of direct preference optimisation."""

    hyperparameters: DpoHyperparameters | None = None


class Method(Request):
    """How to train. As in a job's own method, the other methods may be there without anything in them."""

    type: TrainingMethod
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: NotOffered = None

    @model_validator(mode="after")
    def _nothing_of_the_other(self) -> Self:
        other = "dpo" if self.type == "supervised" else "supervised"
        given = self.dpo if other == "dpo" else self.supervised
        if given is not None and given.hyperparameters is not None:
            raise Refused(other, f"it is without effect where the type is '{self.type}'")
        return self


class JobRequest(Request):
    """POST /v1/fine_tuning/jobs"""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    seed: Seed | None = None
    metadata: Metadata | None = None
    method: Method | None = None
    hyperparameters: SupervisedHyperparameters | None = None
    integrations: NotOffered = None

    @model_validator(mode="after")
    def _hyperparameters_of_the_method(self) -> Self:
        theirs = self.method.dpo and self.method.dpo.hyperparameters if self.method else None
        if self.training_method == "dpo" and self.hyperparameters is not None and theirs is None:
            why = "'hyperparameters' are the supervised method's; give method.dpo.hyperparameters"
            raise Refused("hyperparameters", why)
        return self

    @property
    def training_method(self) -> TrainingMethod:
        """How to train."""
        return self.method.type if self.method else "supervised"

    @property
    def wanted(self) -> Hyperparameters:
        """The hyper-parameters, from the place that is not deprecated if both are given."""
        if self.training_method == "dpo":
            given = self.method.dpo if self.method else None
            return (given and given.hyperparameters) or DpoHyperparameters()
        given = self.method.supervised if self.method else None
        chosen = (given and given.hyperparameters) or self.hyperparameters
        return chosen or SupervisedHyperparameters()
