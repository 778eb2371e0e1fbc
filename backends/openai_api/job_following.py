"""Following a fine-tuning job to its end, through hours of failures if need be."""

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from backends.errors import ServiceError
from backends.interface import Progress
from backends.openai_api.connection import Connection

_log = logging.getLogger(__name__)

FINAL = frozenset({"succeeded", "failed", "cancelled"})
_BEFORE_RUNNING = frozenset({"validating_files", "queued"})
_STUCK_SECONDS = 3600.0
_STEP = re.compile(r"[Ss]tep (\d+)/(\d+)")


@dataclass(frozen=True)
class Metrics:
    """What an event says of a training step."""

    step: int
    total: int
    loss: float | None


class JobEndedError(ServiceError):
    """The job failed or was cancelled."""


class Follower:
    """Watches one job, saying each of its events once."""

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        poll_seconds: float,
        report: Callable[[Progress], None],
    ) -> None:
        self._connection = connection
        self._job_id = job_id
        self._poll_seconds = poll_seconds
        self._report = report
        self._seen: set[str] = set()
        self._last = Metrics(step=0, total=0, loss=None)
        self._status: str | None = None

    async def finished(self) -> FineTuningJob:
        """The job once it succeeded.

        Raises:
            JobEndedError: it failed or was cancelled, with what the service says of it.
            ServiceError: the service refuses to tell.
        """
        started = time.monotonic()
        warned = False
        while True:
            job = await self._poll()
            if job.status in FINAL:
                break
            stuck = job.status in _BEFORE_RUNNING and time.monotonic() - started > _STUCK_SECONDS
            if stuck and not warned:
                warned = True
                _log.warning("%s has been '%s' for over an hour; still waiting", job.id, job.status)
            await asyncio.sleep(self._poll_seconds * random.uniform(0.8, 1.2))
        if job.status != "succeeded":
            raise JobEndedError(await self._what_went_wrong(job))
        return job

    async def _poll(self) -> FineTuningJob:
        # Whatever happens to the polling, the job itself is none the worse for it.
        job = await self._connection.call(
            f"ask for {self._job_id}",
            lambda: self._connection.client.fine_tuning.jobs.retrieve(self._job_id),
            patience_seconds=math.inf,
        )
        for event in await self._new_events():
            self._show(event)
        if job.status != self._status:
            self._status = job.status
            self._say(f"{self._job_id}: {job.status}")
        return job

    async def _new_events(self) -> list[FineTuningJobEvent]:
        """The events not shown yet, oldest first."""

        async def newest_first() -> list[FineTuningJobEvent]:
            events = []
            listing = self._connection.client.fine_tuning.jobs.list_events(self._job_id, limit=100)
            async for event in listing:
                if event.id in self._seen:
                    break
                events.append(event)
            return events

        events = await self._connection.call(
            f"ask for the events of {self._job_id}", newest_first, patience_seconds=math.inf
        )
        self._seen |= {event.id for event in events}
        return events[::-1]

    def _show(self, event: FineTuningJobEvent) -> None:
        metrics = metrics_of(event)
        if metrics is None:
            self._say(f"{self._job_id}: {event.message}")
            return
        self._last = metrics
        self._report(Progress(metrics.step, metrics.total, tokens=0, loss=metrics.loss))

    def _say(self, text: str) -> None:
        last = self._last
        self._report(Progress(last.step, last.total, tokens=0, loss=last.loss, note=text))

    async def _what_went_wrong(self, job: FineTuningJob) -> str:
        parts = [f"{job.id}: {job.status}"]
        # "error": {} parses to an object without a code.
        code = getattr(job.error, "code", None)
        if job.error is not None and code:
            where = f", {job.error.param}" if job.error.param else ""
            parts.append(f"{job.error.message} ({code}{where})")
        listing = self._connection.client.fine_tuning.jobs.list_events
        page = await self._connection.call(
            f"ask for the events of {job.id}", lambda: listing(job.id, limit=100)
        )
        said = " ".join(parts)
        parts += [
            e.message for e in page.data[::-1] if e.level == "error" and e.message not in said
        ]
        return "; ".join(parts)


def metrics_of(event: FineTuningJobEvent) -> Metrics | None:
    """The training step that an event tells of, None for other events."""
    data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
    named = _STEP.search(event.message)
    step, total = data.get("step"), data.get("total_steps")
    if named:
        step, total = step or int(named[1]), total or int(named[2])
    if not isinstance(step, int):
        return None
    loss = data.get("train_loss")
    return Metrics(
        step=step,
        total=total if isinstance(total, int) else step,
        loss=float(loss) if isinstance(loss, int | float) else None,
    )
