"""What "auto" means, and what a job's hyper-parameters mean for the local backend."""

from collections.abc import Mapping
from typing import Any

from openai.types.fine_tuning import (
    DpoHyperparameters,
    DpoMethod,
    SupervisedHyperparameters,
    SupervisedMethod,
)
from openai.types.fine_tuning.fine_tuning_job import FineTuningJob, Hyperparameters, Method

from backends.data import TrainingMethod
from backends.interface import LossOn
from backends.local.settings import LocalSettings, TrainingSettings

_MOST_EPOCHS = 50


def resolved(job: FineTuningJob, local: LocalSettings, n_examples: int) -> FineTuningJob:
    """The job with numbers in place of every "auto": the local backend's own settings."""
    training = local.training
    auto = {
        "n_epochs": min(training.epochs, _MOST_EPOCHS),
        "batch_size": min(training.batch_size, n_examples),
        "learning_rate_multiplier": 1.0,
    }
    if method_of(job) == "dpo":
        auto["beta"] = training.dpo_beta
    asked = _hyperparameters(job)
    numbers = {
        name: default if asked.get(name) in (None, "auto") else asked[name]
        for name, default in auto.items()
    }
    return with_hyperparameters(job, method_of(job), asked | numbers)


def with_hyperparameters(
    job: FineTuningJob, method: TrainingMethod, values: Mapping[str, Any]
) -> FineTuningJob:
    """The job with these, in both places where the wire has them; beta is in the method's alone."""
    common = {name: value for name, value in values.items() if name != "beta"}
    if not common.get("prompt_loss_weight"):  # no field of the service's own: only where asked for
        common.pop("prompt_loss_weight", None)
    if method == "dpo":
        theirs = DpoHyperparameters.model_validate(values)
        chosen = Method(type="dpo", dpo=DpoMethod(hyperparameters=theirs))
    else:
        ours = SupervisedHyperparameters.model_validate(common)
        chosen = Method(type="supervised", supervised=SupervisedMethod(hyperparameters=ours))
    return job.model_copy(
        update={"hyperparameters": Hyperparameters.model_validate(common), "method": chosen}
    )


def method_of(job: FineTuningJob) -> TrainingMethod:
    """How a job trains."""
    return "dpo" if job.method is not None and job.method.type == "dpo" else "supervised"


def loss_on(job: FineTuningJob) -> LossOn:
    """Which tokens a job learns."""
    return (
        "prompt_and_completion" if _hyperparameters(job).get("prompt_loss_weight") else "completion"
    )


def local_settings(job: FineTuningJob, local: LocalSettings) -> LocalSettings:
    """The local backend's settings for a job whose hyper-parameters are resolved."""
    wanted = _hyperparameters(job)
    training = local.training.model_dump() | {
        "epochs": wanted["n_epochs"],
        "batch_size": wanted["batch_size"],
        "learning_rate": local.training.learning_rate * wanted["learning_rate_multiplier"],
    }
    if method_of(job) == "dpo":
        training["dpo_beta"] = wanted["beta"]
    return local.model_copy(update={"training": TrainingSettings.model_validate(training)})


def _hyperparameters(job: FineTuningJob) -> dict[str, Any]:
    """As the job's method has them."""
    of_method = None
    if job.method is not None:
        chosen = job.method.dpo if job.method.type == "dpo" else job.method.supervised
        of_method = chosen and chosen.hyperparameters
    return (of_method or job.hyperparameters).model_dump()
