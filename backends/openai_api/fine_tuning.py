"""A fine-tune from its file to its model: check, upload, create once, follow, collect."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openai.types.fine_tuning import FineTuningJob

from backends.data import AnyExample, TunedModel
from backends.errors import ServiceError, UnsupportedError
from backends.interface import Estimate, FineTuneJob, Progress
from backends.openai_api.connection import Connection
from backends.openai_api.intents import Intent, IntentFile
from backends.openai_api.job_creation import JobCreation
from backends.openai_api.job_following import Follower, JobEndedError
from backends.openai_api.job_results import model_of, training_curve
from backends.openai_api.models import base_name
from backends.openai_api.prices import price_of
from backends.openai_api.providers import provider
from backends.openai_api.settings import OpenAISettings
from backends.openai_api.tokens import Encode, ask_together, example_texts, example_tokens
from backends.openai_api.training_files import check_training_file
from backends.openai_api.uploads import upload

# How the service has resolved "auto" epochs (OpenAI's cookbook, chat_finetuning_data_prep): three, but more
# for few examples and fewer for many. Only estimates rest on it.
_USUAL_EPOCHS = 3
_LEAST_EXAMPLES_IN_ALL, _MOST_EXAMPLES_IN_ALL = 100, 25_000
_MOST_EPOCHS = 25


def likely_epochs(n_examples: int) -> int:
    """What "auto" has come to."""
    if n_examples * _USUAL_EPOCHS < _LEAST_EXAMPLES_IN_ALL:
        return min(_MOST_EPOCHS, _LEAST_EXAMPLES_IN_ALL // n_examples)
    if n_examples * _USUAL_EPOCHS > _MOST_EXAMPLES_IN_ALL:
        return max(1, _MOST_EXAMPLES_IN_ALL // n_examples)
    return _USUAL_EPOCHS


_ANSWERS_ONLY = "this service learns answers only; use --backend local, or kaarel-bet serve"


class FineTuning:
    """Fine-tunes at one service."""

    def __init__(self, connection: Connection, settings: OpenAISettings) -> None:
        self._connection = connection
        self._settings = settings
        self._provider = provider(settings.provider)

    def estimate(self, job: FineTuneJob, encode: Encode) -> Estimate:
        """Billed tokens and, where the price is known, what they cost; checks the files.

        Raises:
            DataError, UnsupportedError: the service would not take them.
        """
        examples = self._checked(job)
        ask_together(encode, (text for example in examples for text in example_texts(example)))
        tokens = sum(example_tokens(encode, example) for example in examples)
        chosen = self._settings.job.n_epochs
        likely = likely_epochs(len(examples)) if chosen == "auto" else chosen
        fewest = min(likely, _USUAL_EPOCHS) if chosen == "auto" else chosen
        price = price_of(self._settings.model)
        usd = None
        if price is not None:
            usd = (price.of_training(fewest * tokens), price.of_training(likely * tokens))
        return Estimate(tokens=likely * tokens, usd=usd)

    async def fine_tune(self, job: FineTuneJob, report: Callable[[Progress], None]) -> TunedModel:
        """As `Backend.fine_tune`: a job that was created before is taken up."""
        examples = self._checked(job)
        file, intent = self._intent(job)
        job_id = intent.job_id
        if job_id is None:
            request = await self._request(job, intent.fingerprint)
            job_id = await JobCreation(self._connection, file, request, self._provider).job_id(
                intent
            )
        await self._check_loss(job, job_id)
        follower = Follower(self._connection, job_id, self._settings.job.poll_seconds, report)
        try:
            finished = await follower.finished()
        except JobEndedError as error:
            # Another one costs money again: that is for the user to decide.
            raise ServiceError(
                f"{error}; remove {file.path} to have another one created"
            ) from error
        tuned = await self._tuned_model(finished, examples)
        total = tuned.training_curve[-1].step if tuned.training_curve else 1
        loss = tuned.training_curve[-1].train_loss if tuned.training_curve else None
        report(Progress(total, total, tokens=tuned.trained_tokens, loss=loss))
        return tuned

    def has_job(self, job: FineTuneJob) -> bool:
        """Whether a job was, or may have been, created."""
        return self._intent_path(job).exists()

    def job_id(self, job: FineTuneJob) -> str | None:
        """The service's name for the job, None while none is known to be created."""
        return self._intent(job)[1].job_id

    def _intent(self, job: FineTuneJob) -> tuple[IntentFile, Intent]:
        file = IntentFile(self._intent_path(job))
        return file, file.read(self._connection.address, self._fingerprint(job))

    def _intent_path(self, job: FineTuneJob) -> Path:
        return job.output.with_name(f"{job.output.name}.job.json")

    def _checked(self, job: FineTuneJob) -> list[AnyExample]:
        # Other services may well have models that learn texts, and prompts; `kaarel-bet serve` has.
        provider = self._provider
        has_price = price_of(self._settings.model) is not None
        chat_only = has_price or not provider.takes_texts
        on_prompts = job.method == "supervised" and job.loss_on != "completion"
        if on_prompts and (has_price or not provider.takes_prompt_loss):
            raise UnsupportedError(f"loss_on {job.loss_on}: {_ANSWERS_ONLY}")
        if job.method == "dpo" and not provider.takes_preferences:
            raise UnsupportedError("method dpo: this service learns from answers, not preferences")
        if job.validation_file is not None:
            check_training_file(job.validation_file, job.method, chat_only=chat_only)
        return check_training_file(job.training_file, job.method, chat_only=chat_only)

    async def _request(self, job: FineTuneJob, fingerprint: str) -> dict[str, Any]:
        """What `fine_tuning.jobs.create` takes; uploads the files."""
        chosen = self._settings.job
        request: dict[str, Any] = {
            "model": job.starts_from or self._settings.model,
            "training_file": await upload(self._connection, job.training_file),
            "method": {job.method: {"hyperparameters": self._wanted(job)}, "type": job.method},
            "seed": job.seed,
            "metadata": {"run_id": job.run_id, "arm": job.name, "fingerprint": fingerprint},
        }
        if job.validation_file is not None:
            request["validation_file"] = await upload(self._connection, job.validation_file)
        if chosen.suffix is not None:
            request["suffix"] = chosen.suffix
        return request

    def _wanted(self, job: FineTuneJob) -> dict[str, Any]:
        """The hyper-parameters of the job's method."""
        chosen = self._settings.job
        wanted = self._provider.hyperparameters(chosen)
        if job.method == "dpo":
            wanted["beta"] = chosen.dpo_beta
        elif job.loss_on != "completion":
            wanted["prompt_loss_weight"] = 1
        return wanted

    async def _check_loss(self, job: FineTuneJob, job_id: str) -> None:
        """Cancels a job at a service that passed over the wish for loss on prompts."""
        if job.loss_on == "completion" or job.method == "dpo":
            return
        jobs = self._connection.client.fine_tuning.jobs
        created = await self._connection.call(f"look at {job_id}", lambda: jobs.retrieve(job_id))
        if (created.hyperparameters.model_extra or {}).get("prompt_loss_weight") != 1:
            await self._connection.call(f"cancel {job_id}", lambda: jobs.cancel(job_id))
            raise UnsupportedError(f"loss_on {job.loss_on}: {_ANSWERS_ONLY} (cancelled {job_id})")

    def identity(self, job: FineTuneJob) -> str:
        """As `Backend.identity`: whatever job of whatever run; a model's name tells nothing of it."""
        return _digest(
            [self._connection.address, *self._content(job, {"poll_seconds", "at_once", "suffix"})]
        )

    def _fingerprint(self, job: FineTuneJob) -> str:
        """What makes the job what it is, as 64 hexadecimal digits."""
        return _digest([job.run_id, job.name, *self._content(job, {"poll_seconds", "at_once"})])

    def _content(self, job: FineTuneJob, left_out: set[str]) -> list[object]:
        """What is sent, without some of the job's settings."""
        files = [
            hashlib.sha256(path.read_bytes()).hexdigest() if path else None
            for path in (job.training_file, job.validation_file)
        ]
        # What is usual stands for itself, so that jobs of earlier versions are known again.
        of_some_services = {"learning_rate", "lora"}
        left_out |= of_some_services - self._settings.job.model_dump(exclude_defaults=True).keys()
        if job.method == "supervised":
            left_out = left_out | {"dpo_beta"}
        chosen = self._settings.job.model_dump(mode="json", exclude=left_out)
        model = job.starts_from or self._settings.model
        if job.method == "dpo":
            return [job.seed, model, files, chosen, job.method]
        loss_on = [job.loss_on] if job.loss_on != "completion" else []
        return [job.seed, model, files, chosen, *loss_on]

    async def _tuned_model(self, job: FineTuningJob, examples: list[AnyExample]) -> TunedModel:
        name = await model_of(self._connection, job, self._provider)
        method = job.method
        asked = method and (method.dpo if method.type == "dpo" else method.supervised)
        used = (asked and asked.hyperparameters) or job.hyperparameters
        dpo = {"method": "dpo"} if method and method.type == "dpo" else {}
        price = price_of(job.model)
        trained = job.trained_tokens or 0
        return TunedModel(
            model=name,
            base_model=base_name(job.model),
            hyperparameters={
                **dpo,
                **(used.model_dump(mode="json", exclude_none=True) if used else {}),
                "seed": job.seed,
                "job": job.id,
                "training_file": job.training_file,
            },
            n_examples=len(examples),
            trained_tokens=trained,
            seconds=float(max(0, (job.finished_at or job.created_at) - job.created_at)),
            cost_usd=price.of_training(trained) if price and job.trained_tokens else None,
            training_curve=await training_curve(self._connection, job),
        )


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
