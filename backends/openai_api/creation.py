"""Creating something that costs money exactly once, over a wire that has no idempotency key.

An intent is on disk before the request is sent. When it can't be told whether a job was made (no
answer, a failure at the service, a process that died), it is looked for among those that the service
lists, and a second request is sent only by a later start that has looked again and found nothing.
"""

import asyncio
import logging
import math
import random
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from backends.errors import ServiceError
from backends.openai_api.connection import Connection, RequestFailed
from backends.openai_api.failures import Failure, Kind
from backends.openai_api.intents import Intent, IntentFile

_log = logging.getLogger(__name__)

CLOCK_SKEW_SECONDS = 86_400.0
"""How far the service's clock may be from ours at the most; what is older is not looked at."""
_PATIENCE_SECONDS = {
    Kind.UNSENT: 600.0,
    Kind.LIMITED: 3600.0,
    Kind.NOT_READY: 3600.0,
    Kind.CAPPED: math.inf,  # tomorrow there is room again
}
"""How long a create is tried that surely made nothing; not at all for other kinds."""
_LONGEST_GROWTH = 12


@dataclass(frozen=True)
class Waits:
    """How long to wait in seconds: for a job to show in the list, and between tries when capped."""

    settle: float = 30.0
    look: float = 3.0
    capped: float = 300.0
    not_ready: float = 5.0


class Created(Protocol):
    """What a service made."""

    id: str
    created_at: int


T = TypeVar("T", bound=Created)


class Creation(ABC, Generic[T]):
    """Creates one job (or batch), or finds the one that was created."""

    noun: ClassVar[str]
    """What is created, for messages."""

    def __init__(self, connection: Connection, file: IntentFile, waits: Waits) -> None:
        self._connection = connection
        self._file = file
        self._waits = waits
        self._first_try = time.monotonic()
        self._tries = 0

    @abstractmethod
    async def _create(self) -> T:
        """Sends the request."""

    @abstractmethod
    async def _matching(self, intent: Intent) -> list[T]:
        """Those that the service lists and that this intent may have made."""

    async def job_id(self, intent: Intent) -> str:
        """The id of the job, which is on disk then.

        Raises:
            ServiceError: the service refuses; or it can't be told whether the job was made.
        """
        if intent.job_id is not None:
            return intent.job_id
        job = await self.find(intent)
        while job is None:
            intent = self._file.write(intent.model_copy(update={"sent": time.time()}))
            try:
                job = await self._connection.once(self._create)
            except RequestFailed as error:
                job = await self._after(error.failure, intent)
        self._file.write(intent.model_copy(update={"job_id": job.id}))
        return job.id

    async def _after(self, failure: Failure, intent: Intent) -> T | None:
        """The job, if the failed request made one after all; None if the request may be sent again."""
        if failure.kind is Kind.UNKNOWN:
            return await self._found_or_unknown(failure, intent)
        self._tries += 1
        patient = time.monotonic() < self._first_try + _PATIENCE_SECONDS.get(failure.kind, 0.0)
        if patient:
            await self._wait(failure)
            return None
        self._file.remove()  # it is certain that nothing was created
        raise failure.as_error(f"create the {self.noun}")

    async def _found_or_unknown(self, failure: Failure, intent: Intent) -> T:
        job = await self.find(intent)
        if job is None:
            raise ServiceError(
                f"the service did not say whether it created the {self.noun} ({failure.message}), and "
                "does not list it; nothing is sent a second time now. Start again to look for it once "
                "more, and to create it if it is not there"
            )
        return job

    async def _wait(self, failure: Failure) -> None:
        usual = self._waits.capped if failure.kind is Kind.CAPPED else self._waits.not_ready
        growing = min(2 ** (self._tries - 1), _LONGEST_GROWTH) * usual * random.uniform(1.0, 1.2)
        seconds = failure.retry_after or growing
        _log.warning(
            "the %s is not created yet: %s; trying again in %.0f s",
            self.noun,
            failure.message,
            seconds,
        )
        await asyncio.sleep(seconds)

    async def find(self, intent: Intent) -> T | None:
        """The job as the service lists it, looked for until it would surely be there.

        Raises:
            ServiceError: the service can't be asked.
        """
        if intent.sent is None:
            return None
        # Since it was sent; never for longer than that takes, though the clock was set back in between.
        waited = max(0.0, time.time() - intent.sent)
        until = time.monotonic() + max(0.0, self._waits.settle - waited)
        while True:
            matching = await self._connection.call(
                f"look for the {self.noun}", lambda: self._matching(intent)
            )
            if matching:
                if len(matching) > 1:
                    ids = ", ".join(job.id for job in matching)
                    _log.warning(
                        "the service has this %s %d times: %s", self.noun, len(matching), ids
                    )
                return min(matching, key=lambda job: job.created_at)
            if time.monotonic() > until:
                return None
            await asyncio.sleep(self._waits.look)
