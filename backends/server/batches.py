"""Batches: files of requests that the server asks itself, a limited number at a time.

Every answer is on disk before the batch counts it; a batch that a killed server left behind goes on with
the requests that have no answer.
"""

import asyncio
import io
import logging
import shutil
from collections.abc import Sequence
from typing import Any

import httpx
from openai.types import Batch, BatchError, BatchRequestCounts, BatchUsage
from openai.types.batch import Errors
from openai.types.batch_usage import InputTokensDetails, OutputTokensDetails
from starlette.types import ASGIApp

from backends.jsonl import AppendOnlyFile, read_jsonl
from backends.server.batch_lines import (
    ANSWER,
    Answer,
    BatchAnswer,
    BatchRequest,
    Failure,
    InvalidBatch,
    read_requests,
)
from backends.server.data_dir import DataDirectory
from backends.server.errors import invalid, not_found, too_many
from backends.server.files import Files
from backends.server.identifiers import new_id, now
from backends.server.records import Records

FINISHED = ("failed", "completed", "expired", "cancelled")
_log = logging.getLogger(__name__)


_OURS = "The server failed at this batch; its log says why."


class Batches:
    """The batches and the tasks that work on them; all methods belong to the server's event loop."""

    def __init__(
        self,
        records: Records,
        data: DataDirectory,
        files: Files,
        *,
        concurrency: int,
        max_unfinished: int,
    ) -> None:
        self._records = records.batches
        self._data = data
        self._files = files
        self._slots = asyncio.Semaphore(concurrency)
        self._max_unfinished = max_unfinished
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._http: httpx.AsyncClient | None = None
        self._closing = False

    def start(self, app: ASGIApp, api_key: str | None) -> None:
        """Takes up what an earlier server left; `app` is who is asked, with the key that it wants."""
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://127.0.0.1",
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        )
        for batch in self._unfinished():
            self._begin(batch.id)

    async def close(self) -> None:
        """Stops; the next server takes the batches up."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel("closing")
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    def add(self, batch: Batch) -> Batch:
        """Begins a new batch.

        Raises:
            ServiceError: its file is not there or not for batches (400), or too many are unfinished (429).
        """
        file = self._files.find(batch.input_file_id)
        if file is None:
            raise invalid(f"There is no file {batch.input_file_id}.", "input_file_id")
        if file.purpose != "batch":
            message = f"The file's purpose is '{file.purpose}', and must be 'batch'."
            raise invalid(message, "input_file_id")
        if len(self._unfinished()) >= self._max_unfinished:
            raise too_many(f"{self._max_unfinished} batches are unfinished; try again later.")
        self._data.batch(batch.id).mkdir()
        self._files.copy(file.id, self._data.batch(batch.id) / "input.jsonl")
        self._records.add(batch.id, batch)
        self._begin(batch.id)
        return batch

    def get(self, identifier: str) -> Batch:
        """The batch. Raises ServiceError (404) where there is none."""
        batch = self._records.get(identifier)
        if batch is None:
            raise not_found("batch", identifier)
        return batch

    def cancel(self, identifier: str) -> Batch:
        """Ends it with the answers it has. Raises ServiceError: none there (404), or finished (400)."""
        batch = self.get(identifier)
        if batch.status in FINISHED:
            raise invalid(f"The batch is {batch.status} already.", code="batch_finished")
        batch = self._change(identifier, status="cancelling", cancelling_at=now())
        if task := self._tasks.get(identifier):
            task.cancel()
        return batch

    def _unfinished(self) -> list[Batch]:
        return [batch for batch in self._records.all() if batch.status not in FINISHED]

    def _begin(self, identifier: str) -> None:
        task = asyncio.create_task(self._run(identifier))
        self._tasks[identifier] = task
        task.add_done_callback(lambda _: self._ended(identifier))

    def _ended(self, identifier: str) -> None:
        self._tasks.pop(identifier, None)
        if not self._closing and self.get(identifier).status == "cancelling":
            # It was cancelled before its requests were read: once they are, what was answered is kept.
            self._begin(identifier)

    def _change(self, identifier: str, **update: object) -> Batch:
        return self._records.change(identifier, lambda batch: batch.model_copy(update=update))

    async def _run(self, identifier: str) -> None:
        """Answers the batch and closes it, whatever happens on the way."""
        directory = self._data.batch(identifier)
        try:
            batch = self.get(identifier)
            requests = await asyncio.to_thread(
                read_requests, directory / "input.jsonl", batch.endpoint
            )
            self._finish(batch, requests, await self._ending(batch, requests))
        except InvalidBatch as problem:
            self._fail(identifier, problem.errors)
            shutil.rmtree(directory, ignore_errors=True)
        except Exception:
            # The answers stay in the directory, for whoever looks after the server.
            _log.exception("batch %s", identifier)
            self._fail(identifier, [BatchError(code="server_error", message=_OURS)])

    def _fail(self, identifier: str, problems: list[BatchError]) -> None:
        errors = Errors(data=problems, object="list")
        self._change(identifier, status="failed", failed_at=now(), errors=errors)

    async def _ending(self, batch: Batch, requests: Sequence[BatchRequest]) -> str:
        """Answers what is not answered yet; returns the status that the batch comes to."""
        if batch.cancelling_at is not None:
            return "cancelled"
        try:
            await self._answer_all(batch, requests)
        except TimeoutError:
            return "expired"
        except asyncio.CancelledError:
            if self.get(batch.id).cancelling_at is None:
                raise
            return "cancelled"
        return "completed"

    async def _answer_all(self, batch: Batch, requests: Sequence[BatchRequest]) -> None:
        """Raises TimeoutError when the batch's time is over."""
        counts = BatchRequestCounts(completed=0, failed=0, total=len(requests))
        path = self._data.batch(batch.id) / "answers.jsonl"
        answers = AppendOnlyFile(path)
        answered = read_jsonl(path, ANSWER, unfinished_ok=True)
        for answer in answered:
            _count(counts, answer)
        self._change(
            batch.id,
            status="in_progress",
            in_progress_at=batch.in_progress_at or now(),
            request_counts=counts,
        )
        done = {answer.custom_id for answer in answered}

        async def ask(request: BatchRequest) -> None:
            async with self._slots:
                answer = await self._answer(request)
            answers.append([answer])
            _count(counts, answer)
            self._change(batch.id, request_counts=counts)

        assert batch.expires_at is not None
        async with asyncio.timeout(batch.expires_at - now()), asyncio.TaskGroup() as group:
            for request in requests:
                if request.custom_id not in done:
                    group.create_task(ask(request))

    async def _answer(self, request: BatchRequest) -> BatchAnswer:
        assert self._http is not None
        body = request.body
        if body.get("stream"):
            failure = Failure(code="invalid_request", message="'stream' is not for batches.")
            return BatchAnswer(id=new_id("batch_req_"), custom_id=request.custom_id, error=failure)
        response = await self._http.post(request.url, json=body, timeout=None)
        answer = Answer(
            status_code=response.status_code,
            request_id=response.headers["x-request-id"],
            body=response.json(),
        )
        return BatchAnswer(id=new_id("batch_req_"), custom_id=request.custom_id, response=answer)

    def _finish(self, batch: Batch, requests: Sequence[BatchRequest], status: str) -> None:
        """Puts the answers into files, in the order of the requests, and closes the batch."""
        self._change(batch.id, status="finalizing", finalizing_at=now())
        path = self._data.batch(batch.id) / "answers.jsonl"
        answers = read_jsonl(path, ANSWER, unfinished_ok=True) if path.exists() else []
        by_id = {answer.custom_id: answer for answer in answers}
        lines = [by_id.get(r.custom_id) or _unanswered(r.custom_id, status) for r in requests]
        succeeded = [line for line in lines if line.succeeded]
        failed = [line for line in lines if not line.succeeded]
        self._change(
            batch.id,
            status=status,
            **{f"{status}_at": now()},
            output_file_id=self._keep(f"{batch.id}_output.jsonl", succeeded),
            error_file_id=self._keep(f"{batch.id}_error.jsonl", failed),
            request_counts=BatchRequestCounts(
                completed=len(succeeded), failed=len(failed), total=len(lines)
            ),
            usage=_usage(succeeded),
        )
        shutil.rmtree(path.parent, ignore_errors=True)

    def _keep(self, name: str, lines: list[BatchAnswer]) -> str | None:
        if not lines:
            return None
        content = "".join(line.model_dump_json() + "\n" for line in lines)
        return self._files.keep(name, io.BytesIO(content.encode()), "batch_output").id


def _count(counts: BatchRequestCounts, answer: BatchAnswer) -> None:
    if answer.succeeded:
        counts.completed += 1
    else:
        counts.failed += 1


def _unanswered(custom_id: str, status: str) -> BatchAnswer:
    message = f"The batch was {status} before this request was answered."
    failure = Failure(code=f"batch_{status}", message=message)
    return BatchAnswer(id=new_id("batch_req_"), custom_id=custom_id, error=failure)


def _usage(succeeded: Sequence[BatchAnswer]) -> BatchUsage:
    counted: list[dict[str, Any]] = [
        line.response.body["usage"] for line in succeeded if line.response
    ]
    prompt = sum(usage["prompt_tokens"] for usage in counted)
    completion = sum(usage["completion_tokens"] for usage in counted)
    return BatchUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=0),
        output_tokens=completion,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=prompt + completion,
    )
