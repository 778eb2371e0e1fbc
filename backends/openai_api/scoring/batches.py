"""Asking by the Batch API: half the price, within a day, and bought once however often a process dies.

What has been submitted is kept on this machine: of each batch an intent (see creation.py) and the ids of
its requests, which are of their content. A later call finds its requests there and waits for their
batches; only what is in none is submitted, and what expired is submitted again.
"""

import asyncio
import hashlib
import logging
import math
import random
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from openai.types import Batch
from typing_extensions import override

from backends import atomic
from backends.errors import RefusedError, ServiceError
from backends.openai_api.answers import read
from backends.openai_api.asking import Asker
from backends.openai_api.concurrency import in_any_order
from backends.openai_api.connection import RequestFailed
from backends.openai_api.creation import CLOCK_SKEW_SECONDS, Creation, Waits
from backends.openai_api.failures import TRANSIENT, Kind
from backends.openai_api.intents import Intent, IntentFile
from backends.openai_api.scoring.batch_files import Line, Outcome, in_files, outcomes
from backends.openai_api.scoring.strategy import AnyQuery, AnyResult, Prepare, Prepared
from backends.openai_api.uploads import upload

_log = logging.getLogger(__name__)

_FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_MOST_ROUNDS = 3
_LOST_SECONDS = 120.0
_LONGEST_WAIT_SECONDS = 30.0


Asked = dict[str, list[tuple[AnyQuery, Prepared[AnyResult]]]]
"""By the id of a request's line: the queries that it answers, each with how it reads the answer."""


@dataclass(frozen=True)
class _Submitted:
    """A batch on record: its intent, and which requests are in it."""

    file: IntentFile
    intent: Intent
    ids: frozenset[str]


class Batches:
    """Asks by batches.

    `directory` keeps the record of what was submitted (default: in the user's state directory);
    `poll_seconds` is the first wait between looks at a batch, which grow.
    """

    def __init__(
        self,
        asker: Asker,
        concurrency: int,
        *,
        directory: Path | None = None,
        poll_seconds: float = 1.0,
        waits: Waits | None = None,
    ) -> None:
        self._connection = asker.connection
        self._concurrency = concurrency
        # A service's batches are of no use at another.
        service = hashlib.sha256(self._connection.address.encode()).hexdigest()[:16]
        directory = directory or platformdirs.user_state_path("kaarel-bet") / "batches"
        self._directory = directory / service
        self._poll_seconds = poll_seconds
        self._waits = waits or Waits()
        self._cancelled: dict[str, _Submitted] = {}

    async def ask(
        self, prepare: Prepare[AnyQuery, AnyResult], queries: Sequence[AnyQuery]
    ) -> AsyncIterator[AnyResult]:
        """One result a query, batch after batch as they are done.

        Raises:
            RefusedError: some requests are refused for their content.
            ServiceError: a batch or one of its requests is refused, or requests expire again and again.
            DataError: a query can't be asked as it is.
        """
        waiting = await self._prepared(prepare, queries)
        refused: list[Outcome] = []
        of_content: dict[str, str] = {}
        async for outcome in self._outcomes_of(self._on_record(waiting.keys())):
            for result in _results(waiting, outcome):
                yield result
        self._stop_if_cancelled(waiting)
        for _ in range(_MOST_ROUNDS):
            async for outcome in self._outcomes_of([b async for b in self._submit(waiting)]):
                for result in _results(waiting, outcome):
                    yield result
                if outcome.is_refusal and outcome.custom_id in waiting:
                    if outcome.is_of_content:
                        asked = waiting.pop(outcome.custom_id)
                        of_content |= {query.id: outcome.reason for query, _ in asked}
                    else:
                        refused.append(outcome)
            self._stop_if_cancelled(waiting)
            if refused:
                query = waiting[refused[0].custom_id][0][0]
                raise ServiceError(
                    f"query '{query.id}': {refused[0].reason}; {len(refused)} requests were refused"
                )
            if not waiting:
                if of_content:
                    raise RefusedError(of_content)
                return
            _log.warning("%d requests were not done in time; they are asked again", len(waiting))
        raise ServiceError(
            f"{len(waiting)} requests were not done in {_MOST_ROUNDS} batches; start again to ask once "
            "more, or set openai.scoring.batch to false"
        )

    def _stop_if_cancelled(self, waiting: Asked[Any, Any]) -> None:
        """Somebody who cancelled a batch does not want it bought again without being asked."""
        if not self._cancelled or not waiting:
            return
        for submitted in self._cancelled.values():
            _forget(submitted)
        raise ServiceError(
            f"{', '.join(self._cancelled)}: cancelled; what it answered is kept. Start again to ask the "
            f"other {len(waiting)} requests in another batch"
        )

    async def _prepared(
        self, prepare: Prepare[AnyQuery, AnyResult], queries: Sequence[AnyQuery]
    ) -> Asked[AnyQuery, AnyResult]:
        async def prepared(query: AnyQuery) -> tuple[AnyQuery, Prepared[AnyResult]]:
            return query, await prepare(query)

        asked: Asked[AnyQuery, AnyResult] = {}
        async for query, request in in_any_order(prepared, queries, self._concurrency):
            line = Line.of(request.request)
            asked.setdefault(line.id, []).append((query, request))
        return asked

    def _on_record(self, wanted: Collection[str]) -> list[_Submitted]:
        """The batches that were sent to this service, or may have been, with any of these requests."""
        submitted = []
        for path in sorted(self._directory.glob("*.json")):
            ids = frozenset(_ids_path(path).read_text(encoding="utf-8").split())
            file = IntentFile(path)
            intent = file.read(self._connection.address, path.stem)
            if intent.sent is not None and not ids.isdisjoint(wanted):
                submitted.append(_Submitted(file, intent, ids))
        return submitted

    async def _submit(self, asked: Asked[Any, Any]) -> AsyncIterator[_Submitted]:
        """Puts requests into as few batches as the service's limits allow."""
        by_path: dict[str, list[Line]] = {}
        for entries in asked.values():
            request = entries[0][1].request
            by_path.setdefault(request.path, []).append(Line.of(request))
        for path, lines in by_path.items():
            for file_lines in in_files(lines):
                yield await self._create(f"/v1{path}", file_lines)

    async def _create(self, endpoint: str, lines: list[Line]) -> _Submitted:
        ids = frozenset(line.id for line in lines)
        # What expired is asked again in another batch than before.
        earlier = len(self._on_record(ids))
        parts = [str(earlier), *sorted(ids)]
        fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        file = IntentFile(self._directory / f"{fingerprint}.json")
        intent = file.read(self._connection.address, fingerprint)
        atomic.write_text(_ids_path(file.path), "\n".join(sorted(ids)) + "\n")
        creation = BatchCreation(self._connection, file, self._waits)
        creation.request = {
            "input_file_id": await self._upload(lines),
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": {"fingerprint": fingerprint},
        }
        job_id = await creation.job_id(intent)
        _log.warning("%s: submitted with %d requests", job_id, len(ids))
        return _Submitted(file, file.read(self._connection.address, fingerprint), ids)

    async def _upload(self, lines: list[Line]) -> str:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "requests.jsonl")
            path.write_bytes(b"".join(line.text for line in lines))
            return await upload(self._connection, path, "batch")

    async def _outcomes_of(self, batches: Sequence[_Submitted]) -> AsyncIterator[Outcome]:
        async for done in in_any_order(self._outcomes, batches, max(1, len(batches))):
            for outcome in done:
                yield outcome

    async def _outcomes(self, submitted: _Submitted) -> list[Outcome]:
        """What became of a batch's requests, once it is over; nothing if there is no such batch."""
        batch_id = submitted.intent.job_id
        if batch_id is None:
            creation = BatchCreation(self._connection, submitted.file, self._waits)
            found = await creation.find(submitted.intent)
            batch_id = found.id if found else None
        try:
            batch = await self._finished(batch_id) if batch_id else None
            if batch is not None and batch.status != "failed":
                if batch.status == "cancelled":
                    self._cancelled[batch.id] = submitted
                files = (batch.output_file_id, batch.error_file_id)
                return [o for file in files if file for o in await self._read(file)]
        except RequestFailed as error:
            if error.failure.kind is not Kind.NOT_FOUND:
                raise error.failure.as_error(f"fetch the batch {batch_id}") from error
            batch = None  # services delete them after a while
        _forget(submitted)
        if batch is not None:
            raise ServiceError(_what_went_wrong(batch))
        return []

    async def _finished(self, batch_id: str) -> Batch:
        """The batch once it is over, through hours of failures if need be."""
        status = None
        wait = self._poll_seconds
        while True:
            batch = await self._retrieved(batch_id)
            if batch.status in _FINAL:
                return batch
            if batch.status != status:
                status = batch.status
                _log.warning("%s: %s", batch_id, status)
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))
            wait = min(1.3 * wait, _LONGEST_WAIT_SECONDS)

    async def _retrieved(self, batch_id: str) -> Batch:
        what = f"ask for {batch_id}"

        async def retrieve() -> Batch:
            return await self._connection.client.batches.retrieve(batch_id)

        try:
            return await self._connection.tried(what, retrieve, patience_seconds=math.inf)
        except RequestFailed as error:
            if error.failure.kind is not Kind.NOT_FOUND:
                raise
        # A batch is paid for: one look in vain does not mean that it is gone.
        return await self._connection.tried(
            what,
            retrieve,
            patience_seconds=_LOST_SECONDS,
            transient=TRANSIENT | {Kind.NOT_FOUND},
        )

    async def _read(self, file_id: str) -> list[Outcome]:
        async def fetch() -> list[Outcome]:
            answer = await self._connection.client.files.content(file_id)
            return list(outcomes(answer.content, file_id))

        return await self._connection.tried(f"fetch {file_id}", fetch)


class BatchCreation(Creation[Batch]):
    """Creates one batch, or finds the one that was created, by its metadata."""

    noun = "batch"
    request: Mapping[str, Any]
    """What `batches.create` takes; needed to create, not to find."""

    @override
    async def _create(self) -> Batch:
        return await self._connection.client.batches.create(**self.request)

    @override
    async def _matching(self, intent: Intent) -> list[Batch]:
        assert intent.sent is not None
        matching = []
        async for batch in self._connection.client.batches.list(limit=100):
            if batch.created_at < intent.sent - CLOCK_SKEW_SECONDS:
                break  # the newest come first
            if (batch.metadata or {}).get("fingerprint") == intent.fingerprint:
                matching.append(batch)
        return matching


def _ids_path(path: Path) -> Path:
    return path.with_suffix(".ids")


def _forget(submitted: _Submitted) -> None:
    submitted.file.remove()
    _ids_path(submitted.file.path).unlink(missing_ok=True)


def _results(waiting: Asked[AnyQuery, AnyResult], outcome: Outcome) -> Iterator[AnyResult]:
    """The results that an outcome gives; what it answers waits no more."""
    if outcome.answer is None or outcome.custom_id not in waiting:
        return
    for _, asked in waiting.pop(outcome.custom_id):
        yield asked.read(read(asked.request.answer, outcome.answer))


def _what_went_wrong(batch: Batch) -> str:
    errors = (batch.errors.data if batch.errors else None) or []
    said = "; ".join(f"{error.message} ({error.code})" for error in errors[:3])
    return (
        f"{batch.id} failed: {said or 'the service does not say why'}; openai.scoring.batch: false asks "
        "without batches"
    )
