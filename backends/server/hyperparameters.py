"""What "auto" means, and what a job's hyper-parameters mean for the local backend."""

from typing import Literal, TypeVar

from openai.types.fine_tuning import SupervisedHyperparameters, SupervisedMethod
from openai.types.fine_tuning.fine_tuning_job import FineTuningJob, Hyperparameters, Method

from backends.interface import LossOn
from backends.local.settings import LocalSettings, TrainingSettings

_MOST_EPOCHS = 50

Number = TypeVar("Number", int, float)


def resolved(job: FineTuningJob, local: LocalSettings, n_examples: int) -> FineTuningJob:
    """The job with numbers in place of every "auto": the local backend's own settings."""
    training = local.training
    return with_hyperparameters(
        job,
        n_epochs=_number(job.hyperparameters.n_epochs, min(training.epochs, _MOST_EPOCHS)),
        batch_size=_number(job.hyperparameters.batch_size, min(training.batch_size, n_examples)),
        learning_rate_multiplier=_number(job.hyperparameters.learning_rate_multiplier, 1.0),
        prompt_loss_weight=int(loss_on(job) == "prompt_and_completion"),
    )


def with_hyperparameters(
    job: FineTuningJob,
    *,
    n_epochs: int | Literal["auto"],
    batch_size: int | Literal["auto"],
    learning_rate_multiplier: float | Literal["auto"],
    prompt_loss_weight: int | None,
) -> FineTuningJob:
    """The job with these, in both places where the wire has them."""
    values = {
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": learning_rate_multiplier,
    }
    if prompt_loss_weight:  # no field of the service's own: only where it was asked for
        values["prompt_loss_weight"] = prompt_loss_weight
    supervised = SupervisedMethod(hyperparameters=SupervisedHyperparameters.model_validate(values))
    return job.model_copy(
        update={
            "hyperparameters": Hyperparameters.model_validate(values),
            "method": Method(type="supervised", supervised=supervised),
        }
    )


def loss_on(job: FineTuningJob) -> LossOn:
    """Which tokens a job learns."""
    extra = job.hyperparameters.model_extra or {}
    return "prompt_and_completion" if extra.get("prompt_loss_weight") else "completion"


def local_settings(job: FineTuningJob, local: LocalSettings) -> LocalSettings:
    """The local backend's settings for a job whose hyper-parameters are resolved."""
    wanted = job.hyperparameters
    assert isinstance(wanted.learning_rate_multiplier, float | int)
    training = local.training.model_dump() | {
        "epochs": wanted.n_epochs,
        "batch_size": wanted.batch_size,
        "learning_rate": local.training.learning_rate * wanted.learning_rate_multiplier,
    }
    return local.model_copy(update={"training": TrainingSettings.model_validate(training)})


def _number(wanted: Number | Literal["auto"] | None, default: Number) -> Number:
    return default if wanted is None or wanted == "auto" else wanted
