"""Creating a fine-tuning job exactly once, over a wire that has no idempotency key.

An intent is on disk before the request is sent. When it can't be told whether a job was made (no
answer, a failure at the service, a process that died), it is looked for by its metadata, and a
second request is sent only by a later start that has looked again and found nothing.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from openai.types.fine_tuning import FineTuningJob

from backends.errors import ServiceError
from backends.openai_api.connection import Connection, RequestFailed
from backends.openai_api.failures import Failure, Kind
from backends.openai_api.intents import Intent, IntentFile

_log = logging.getLogger(__name__)

_CLOCK_SKEW_SECONDS = 600.0
_LONGEST_FILE_WAIT_SECONDS = 3600.0


@dataclass(frozen=True)
class Waits:
    """How long to wait in seconds: for a job to show in the list, and between tries when capped."""

    settle: float = 30.0
    look: float = 3.0
    capped: float = 300.0
    not_ready: float = 5.0


class JobCreation:
    """Creates one job, or finds the one that was created."""

    def __init__(
        self,
        connection: Connection,
        file: IntentFile,
        request: dict[str, Any],
        waits: Waits | None = None,
    ) -> None:
        """`request` is what `fine_tuning.jobs.create` takes; its metadata must tell the job apart."""
        self._connection = connection
        self._file = file
        self._request = request
        self._waits = waits or Waits()
        self._first_try = time.time()

    async def job_id(self, intent: Intent) -> str:
        """The id of the job, which is on disk then.

        Raises:
            ServiceError: the service refuses; or it can't be told whether the job was made.
        """
        if intent.job_id is not None:
            return intent.job_id
        job = await self._find(intent) if intent.sent is not None else None
        while job is None:
            intent = self._file.write(intent.model_copy(update={"sent": time.time()}))
            try:
                job = await self._connection.once(
                    lambda: self._connection.client.fine_tuning.jobs.create(**self._request)
                )
            except RequestFailed as error:
                job = await self._after(error.failure, intent)
        self._file.write(intent.model_copy(update={"job_id": job.id}))
        return job.id

    async def _after(self, failure: Failure, intent: Intent) -> FineTuningJob | None:
        """The job, if the failed request made one after all; None if the request may be sent again."""
        if failure.kind is Kind.UNKNOWN:
            return await self._found_or_unknown(failure, intent)
        if failure.kind in (Kind.UNSENT, Kind.LIMITED, Kind.CAPPED, Kind.NOT_READY):
            await self._wait(failure)
            return None
        self._file.remove()
        raise failure.as_error(f"create the fine-tuning job for {self._request['model']}")

    async def _found_or_unknown(self, failure: Failure, intent: Intent) -> FineTuningJob:
        job = await self._find(intent)
        if job is None:
            raise ServiceError(
                f"the service did not say whether it created the fine-tuning job ({failure.message}), and "
                "does not list it; nothing is sent a second time now. Start again to look for it once "
                "more, and to create it if it is not there"
            )
        return job

    async def _wait(self, failure: Failure) -> None:
        waits = {Kind.CAPPED: self._waits.capped, Kind.NOT_READY: self._waits.not_ready}
        seconds = failure.retry_after or waits.get(failure.kind, self._waits.not_ready)
        waited = time.time() - self._first_try
        if failure.kind is Kind.NOT_READY and waited > _LONGEST_FILE_WAIT_SECONDS:
            raise failure.as_error("create the fine-tuning job: its file was not ready for an hour")
        _log.warning(
            "the job is not created yet: %s; trying again in %.0f s", failure.message, seconds
        )
        await asyncio.sleep(seconds)

    async def _find(self, intent: Intent) -> FineTuningJob | None:
        """The job as the service lists it, looked for until it would surely be there."""
        assert intent.sent is not None
        while True:
            matching = await self._connection.call(
                "look for the fine-tuning job", lambda: self._matching(intent)
            )
            if matching:
                if len(matching) > 1:
                    ids = ", ".join(job.id for job in matching)
                    _log.warning("the service has %d such jobs: %s", len(matching), ids)
                return min(matching, key=lambda job: job.created_at)
            if time.time() > intent.sent + self._waits.settle:
                return None
            await asyncio.sleep(self._waits.look)

    async def _matching(self, intent: Intent) -> list[FineTuningJob]:
        assert intent.sent is not None
        jobs = self._connection.client.fine_tuning.jobs.list(
            metadata=self._request["metadata"], limit=100
        )
        matching = []
        async for job in jobs:
            if job.created_at < intent.sent - _CLOCK_SKEW_SECONDS:
                break  # the newest come first
            # A server may ignore the filter, or keep no metadata at all.
            if job.metadata == self._request["metadata"] or self._made_like_ours(job):
                matching.append(job)
        return matching

    def _made_like_ours(self, job: FineTuningJob) -> bool:
        ours = self._request
        return (
            not job.metadata
            and job.training_file == ours["training_file"]
            and job.model == ours["model"]
            and job.seed == ours["seed"]
        )
