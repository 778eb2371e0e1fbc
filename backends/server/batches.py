"""Batches: files of requests that the server asks itself, a limited number at a time.

Every answer is on disk before the batch counts it; a batch that a killed server left behind goes on with
the requests that have no answer.
"""

import asyncio
import contextlib
import io
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import httpx
from openai.types import Batch, BatchError, BatchRequestCounts, FileObject
from openai.types.batch import Errors
from starlette.types import ASGIApp

from backends.server.batch_answers import BatchAnswers, in_order, usage
from backends.server.batch_lines import (
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
_OURS = "The server failed at this batch; its log says why."
_COUNTS_EVERY = 1.0
"""Seconds between two looks at how many answers there are."""

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Batches:
    """The batches and the tasks that work on them; all methods belong to the server's event loop.

    What grows with the batch is read and written on one thread, in the order it was asked for.
    """

    def __init__(
        self,
        records: Records,
        data: DataDirectory,
        files: Files,
        *,
        concurrency: int,
        max_unfinished: int,
    ) -> None:
        self._store = records.store
        self._records = records.batches
        self._data = data
        self._files = files
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="batches")
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
        await asyncio.to_thread(self._disk.shutdown)
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
        if batch.status in ("cancelling", "finalizing"):  # it is ending, with what it has
            return batch
        batch = self._change(identifier, status="cancelling", cancelling_at=now())
        if task := self._tasks.get(identifier):
            task.cancel()
        return batch

    def _unfinished(self) -> list[Batch]:
        return [batch for batch in self._records.all() if batch.status not in FINISHED]

    async def _on_disk(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _begin(self, identifier: str) -> None:
        task = asyncio.create_task(self._run(identifier))
        self._tasks[identifier] = task
        task.add_done_callback(lambda task: self._ended(identifier, task))

    def _ended(self, identifier: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(identifier, None)
        if not task.cancelled() and (error := task.exception()):
            # Not even its failure could be written down. The next server takes it up.
            _log.error("batch %s could not be closed", identifier, exc_info=error)
            return
        if not self._closing and self.get(identifier).status == "cancelling":
            # It was cancelled before its requests were read: once they are, what was answered is kept.
            self._begin(identifier)

    def _change(self, identifier: str, **update: object) -> Batch:
        return self._records.change(identifier, lambda batch: batch.model_copy(update=update))

    async def _run(self, identifier: str) -> None:
        """Answers the batch and closes it, whatever happens on the way."""
        path = self._data.batch(identifier) / "input.jsonl"
        try:
            batch = self.get(identifier)
            requests = await asyncio.to_thread(read_requests, path, batch.endpoint)
            status = await self._ending(batch, requests)
            self._change(identifier, status="finalizing", finalizing_at=now())
            await self._on_disk(lambda: self._finish(identifier, requests, status))
        except InvalidBatch as problem:
            self._fail(identifier, problem.errors)
        except Exception:
            _log.exception("batch %s", identifier)
            await self._on_disk(lambda: self._give_up(identifier))
        await self._on_disk(lambda: shutil.rmtree(path.parent, ignore_errors=True))

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
        async with self._answers(batch.id, requests) as answers:
            self._change(
                batch.id,
                status="in_progress",
                in_progress_at=batch.in_progress_at or now(),
                request_counts=answers.counts,
            )
            assert batch.expires_at is not None
            async with asyncio.timeout(batch.expires_at - now()), asyncio.TaskGroup() as group:
                counting = group.create_task(self._tell_counts(batch.id, answers))
                missing = iter(answers.missing)
                async with asyncio.TaskGroup() as workers:
                    for _ in range(self._concurrency):
                        workers.create_task(self._work(missing, answers))
                counting.cancel()

    @contextlib.asynccontextmanager
    async def _answers(
        self, identifier: str, requests: Sequence[BatchRequest]
    ) -> AsyncIterator[BatchAnswers]:
        path = self._data.batch(identifier) / "answers.jsonl"
        answers = await self._on_disk(lambda: BatchAnswers(path, requests))
        try:
            yield answers
        finally:
            self._disk.submit(answers.close)  # after whatever is still being written

    async def _work(self, missing: Iterator[BatchRequest], answers: BatchAnswers) -> None:
        """Answers one request after the other; `missing` is shared with the other workers."""
        for request in missing:
            async with self._slots:
                answer = await self._answer(request)
            await self._on_disk(partial(answers.add, answer))

    async def _tell_counts(self, identifier: str, answers: BatchAnswers) -> None:
        told = answers.counts.model_copy()
        while True:
            await asyncio.sleep(_COUNTS_EVERY)
            counts = answers.counts.model_copy()
            if counts != told:
                await self._on_disk(partial(self._change, identifier, request_counts=counts))
                told = counts

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

    def _finish(self, identifier: str, requests: Sequence[BatchRequest], status: str) -> None:
        """Puts the answers into files, in the order of the requests, and closes the batch.

        Raises:
            OSError, DataError: the answers can't be read or the files not be written; then none is there.
        """
        lines = in_order(self._data.batch(identifier) / "answers.jsonl", requests, status)
        succeeded = [line for line in lines if line.succeeded]
        failed = [line for line in lines if not line.succeeded]
        counts = BatchRequestCounts(completed=len(succeeded), failed=len(failed), total=len(lines))
        with contextlib.ExitStack() as undo:
            output = self._written(f"{identifier}_output.jsonl", succeeded, undo)
            errors = self._written(f"{identifier}_error.jsonl", failed, undo)
            with self._store.transaction():
                self._change(
                    identifier,
                    status=status,
                    **{f"{status}_at": now()},
                    output_file_id=self._kept(output),
                    error_file_id=self._kept(errors),
                    request_counts=counts,
                    usage=usage(succeeded),
                )
            undo.pop_all()

    def _written(
        self, name: str, lines: list[BatchAnswer], undo: contextlib.ExitStack
    ) -> FileObject | None:
        if not lines:
            return None
        content = "".join(line.model_dump_json() + "\n" for line in lines)
        file = self._files.write(name, io.BytesIO(content.encode()), "batch_output")
        undo.callback(self._files.discard, file)
        return file

    def _kept(self, file: FileObject | None) -> str | None:
        return None if file is None else self._files.record(file).id

    def _fail(self, identifier: str, problems: list[BatchError], output: str | None = None) -> None:
        errors = Errors(data=problems, object="list")
        self._change(
            identifier,
            status="failed",
            failed_at=now(),
            errors=errors,
            output_file_id=output,
        )

    def _give_up(self, identifier: str) -> None:
        """Fails it for a reason of ours. The answers so far are its output, the very file that they
        are in: the disk may be full."""
        path = self._data.batch(identifier) / "answers.jsonl"
        problems = [BatchError(code="server_error", message=_OURS)]
        answered = path.exists() and path.stat().st_size > 0
        with contextlib.ExitStack() as undo, self._store.transaction():
            file = None
            if answered:
                file = self._files.adopt(f"{identifier}_output.jsonl", path, "batch_output")
                undo.callback(self._files.discard, file)
            self._fail(identifier, problems, self._kept(file))
            undo.pop_all()
