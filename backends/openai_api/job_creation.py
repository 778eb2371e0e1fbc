"""Creating a fine-tuning job exactly once."""

from typing import Any

from openai.types.fine_tuning import FineTuningJob
from typing_extensions import override

from backends.openai_api.connection import Connection
from backends.openai_api.creation import CLOCK_SKEW_SECONDS, Creation, Waits
from backends.openai_api.intents import Intent, IntentFile
from backends.openai_api.providers import Provider, hyperparameters_of

_RECENT_SECONDS = 600.0


class JobCreation(Creation[FineTuningJob]):
    """Creates one job, or finds the one that was created."""

    noun = "fine-tuning job"

    def __init__(
        self,
        connection: Connection,
        file: IntentFile,
        request: dict[str, Any],
        provider: Provider,
        waits: Waits | None = None,
    ) -> None:
        """`request` is what OpenAI takes, with metadata to tell the job apart; `provider` shapes it."""
        super().__init__(connection, file, waits or Waits())
        self._request = request
        self._sent = provider.shaped(request)

    @override
    async def _create(self) -> FineTuningJob:
        return await self._connection.client.fine_tuning.jobs.create(**self._sent)

    @override
    async def _matching(self, intent: Intent) -> list[FineTuningJob]:
        assert intent.sent is not None
        jobs = self._connection.client.fine_tuning.jobs.list(
            metadata=self._request["metadata"], limit=100
        )
        matching = []
        async for job in jobs:
            if job.created_at < intent.sent - CLOCK_SKEW_SECONDS:
                break  # the newest come first
            # A server may ignore the filter, or keep no metadata at all.
            recent = job.created_at > intent.sent - _RECENT_SECONDS
            if job.metadata == self._request["metadata"] or (recent and self._made_like_ours(job)):
                matching.append(job)
        return matching

    def _made_like_ours(self, job: FineTuningJob) -> bool:
        ours = self._request
        wanted = hyperparameters_of(self._sent)
        resolved = job.hyperparameters.model_dump()
        return (
            not job.metadata
            and job.training_file == ours["training_file"]
            and job.validation_file == ours.get("validation_file")
            and job.model == ours["model"]
            and job.seed == ours["seed"]
            and all(value in ("auto", resolved.get(name)) for name, value in wanted.items())
        )
