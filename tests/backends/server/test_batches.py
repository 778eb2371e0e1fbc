import asyncio
import errno
import json
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types import Batch

from backends.jsonl import AppendOnlyFile
from backends.server.batches import FINISHED
from tests.server import RunningServer, StartServer, until

CHAT = "/v1/chat/completions"


def line(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    chat = {
        "model": "llama",
        "messages": [{"role": "user", "content": f"Say {custom_id}"}],
        "max_tokens": 2,
        "temperature": 0,
    }
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": chat | body}


def start(server: RunningServer, lines: list[dict[str, Any]], endpoint: str = CHAT) -> Batch:
    client = server.client()
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("batch.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint=endpoint,  # pyright: ignore[reportArgumentType]
        completion_window="24h",
        metadata={"of": "a test"},
    )


def finished(server: RunningServer, batch: Batch) -> Batch:
    retrieve = server.client().batches.retrieve
    over = ("completed", "failed", "expired", "cancelled")
    until(lambda: retrieve(batch.id).status in over)
    return retrieve(batch.id)


def content(server: RunningServer, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    text = server.client().files.content(file_id).text
    return [json.loads(line) for line in text.splitlines()]


def test_answers_are_those_of_single_requests_and_mistakes_stand_apart(
    server: RunningServer,
) -> None:
    lines = [line("a"), line("bad", temperature=9), line("b"), line("lost", model="gpt-9")]
    batch = finished(server, start(server, lines))
    assert batch.status == "completed"
    assert batch.metadata == {"of": "a test"}
    assert batch.request_counts is not None
    counts = batch.request_counts
    assert (counts.completed, counts.failed, counts.total) == (2, 2, 4)
    answers = content(server, batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == ["a", "b"]
    for answer in answers:
        alone = server.client().chat.completions.create(**line(answer["custom_id"])["body"])
        body = answer["response"]["body"]
        assert body["choices"][0]["message"]["content"] == alone.choices[0].message.content
    failed = content(server, batch.error_file_id)
    assert [answer["custom_id"] for answer in failed] == ["bad", "lost"]
    assert [answer["response"]["status_code"] for answer in failed] == [400, 404]
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(
        a["response"]["body"]["usage"]["completion_tokens"] for a in answers
    )
    assert [b.id for b in server.client().batches.list()] == [batch.id]


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line("a"), line("a")], "duplicate_custom_id", 2),
        ([line("a", url="/v1/completions")], "mismatched_url", 1),
        ([line("a"), {"custom_id": "b"}], "invalid_json_line", 2),
    ],
)
def test_a_file_that_is_no_batch_fails_and_says_where(
    server: RunningServer, lines: list[dict[str, Any]], code: str, number: int
) -> None:
    batch = finished(server, start(server, lines))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, number)


def slow(server: RunningServer, monkeypatch: pytest.MonkeyPatch, waits_on: str) -> None:
    """Makes one request of a batch take for ever."""
    answer = server.parts.batches._answer

    async def answered(request: Any) -> Any:
        if request.custom_id == waits_on:
            await asyncio.sleep(3600)
        return await answer(request)

    monkeypatch.setattr(server.parts.batches, "_answer", answered)


def one_answered(server: RunningServer, batch: Batch) -> bool:
    counts = server.client().batches.retrieve(batch.id).request_counts
    return counts is not None and counts.completed == 1


def test_a_cancelled_batch_keeps_the_answers_it_has(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(server, monkeypatch, "b")
    batch = start(server, [line("a"), line("b")])
    until(lambda: one_answered(server, batch))
    assert server.client().batches.cancel(batch.id).status == "cancelling"
    batch = finished(server, batch)
    assert batch.status == "cancelled"
    assert [a["custom_id"] for a in content(server, batch.output_file_id)] == ["a"]
    (unanswered,) = content(server, batch.error_file_id)
    assert unanswered["error"]["code"] == "batch_cancelled"
    with pytest.raises(openai.BadRequestError):
        server.client().batches.cancel(batch.id)


def test_a_batch_whose_time_is_over_expires(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.parts.inference.load()  # which may take longer than the batch has
    slow(server, monkeypatch, "b")
    monkeypatch.setattr("backends.server.routes.batches._WINDOW", 3)
    batch = finished(server, start(server, [line("a"), line("b")]))
    assert batch.status == "expired"
    assert [a["custom_id"] for a in content(server, batch.output_file_id)] == ["a"]
    (unanswered,) = content(server, batch.error_file_id)
    assert unanswered["error"]["code"] == "batch_expired"


def test_a_restarted_server_answers_only_what_is_missing(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    with monkeypatch.context() as patch:
        slow(server, patch, "b")
        batch = start(server, [line("a"), line("b")])
        until(lambda: one_answered(server, batch))
        path = server.parts.data.batch(batch.id) / "answers.jsonl"
        first = json.loads(path.read_text())
        server.stop()
    server = start_server()
    batch = finished(server, batch)
    assert batch.status == "completed"
    answers = content(server, batch.output_file_id)
    assert answers[0]["id"] == first["id"]
    assert [answer["custom_id"] for answer in answers] == ["a", "b"]
    until(lambda: not path.exists())


def test_a_server_killed_at_the_end_of_a_batch_leaves_no_file_twice(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    closing = threading.Event()
    change = server.parts.records.batches.change

    def dies(identifier: str, changed: Callable[[Batch], Batch]) -> Batch:
        """The last that a server does that is killed before the batch is closed."""

        def checked(batch: Batch) -> Batch:
            if changed(batch).status in FINISHED:
                closing.set()
                raise sqlite3.OperationalError("database or disk is full")
            return changed(batch)

        return change(identifier, checked)

    monkeypatch.setattr(server.parts.records.batches, "change", dies)
    batch = start(server, [line("a")])
    assert closing.wait(60)
    server.stop()
    server = start_server()
    batch = finished(server, batch)
    assert batch.status == "completed"
    assert [a["custom_id"] for a in content(server, batch.output_file_id)] == ["a"]
    outputs = server.client().files.list(purpose="batch_output")
    assert [file.id for file in outputs] == [batch.output_file_id]
    on_disk = {path.name for path in (server.parts.data.path / "files").iterdir()}
    assert on_disk == {batch.input_file_id, batch.output_file_id}


def test_a_batch_that_cannot_be_closed_fails_with_the_answers_so_far(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = server.parts.files.write

    def full(name: str, *rest: Any) -> Any:
        if name.endswith("_error.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(name, *rest)

    monkeypatch.setattr(server.parts.files, "write", full)
    batch = finished(server, start(server, [line("a"), line("lost", model="gpt-9")]))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == "server_error"
    answered = {a["custom_id"] for a in content(server, batch.output_file_id)}
    assert answered == {"a", "lost"}
    assert [f.id for f in server.client().files.list(purpose="batch_output")] == [
        batch.output_file_id
    ]
    until(lambda: not server.parts.data.batch(batch.id).exists())
    on_disk = {path.name for path in (server.parts.data.path / "files").iterdir()}
    assert on_disk == {batch.input_file_id, batch.output_file_id}


def test_a_large_batch_is_asked_a_few_at_a_time_and_written_off_the_loop(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(batch_concurrency=3)
    answer, append = server.parts.batches._answer, AppendOnlyFile.append
    n_tasks: list[int] = []
    writers: set[threading.Thread] = set()
    n_changes = 0
    change = server.parts.records.batches.change

    async def answered(request: Any) -> Any:
        n_tasks.append(len(asyncio.all_tasks()))
        return await answer(request)

    def appended(self: AppendOnlyFile, records: Any) -> None:
        writers.add(threading.current_thread())
        append(self, records)

    def changed(*arguments: Any) -> Batch:
        nonlocal n_changes
        n_changes += 1
        return change(*arguments)

    monkeypatch.setattr(server.parts.batches, "_answer", answered)
    monkeypatch.setattr(AppendOnlyFile, "append", appended)
    monkeypatch.setattr(server.parts.records.batches, "change", changed)
    n = 200
    batch = finished(server, start(server, [line(str(i), model="gpt-9") for i in range(n)]))
    assert batch.request_counts is not None
    assert batch.request_counts.failed == n
    assert max(n_tasks) < 50
    assert server._thread not in writers
    assert n_changes < n / 2


def test_only_files_for_batches_are_taken(server: RunningServer) -> None:
    for file_id in (server.upload().id, "file-none"):
        with pytest.raises(openai.BadRequestError) as caught:
            server.client().batches.create(
                input_file_id=file_id, endpoint=CHAT, completion_window="24h"
            )
        assert caught.value.param == "input_file_id"
