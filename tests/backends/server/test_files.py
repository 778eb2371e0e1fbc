import threading
from pathlib import Path

import openai
import pytest

from backends.data import TunedModel
from backends.local.training_process import Report, Stopped, TrainingOrder
from backends.server.records import JobRecord
from tests.server import RunningServer, StartServer, training_file, until


def test_a_file_comes_back_as_it_was_sent(server: RunningServer) -> None:
    client = server.client()
    content = training_file(12)
    file = client.files.create(file=("mine.jsonl", content), purpose="fine-tune")
    assert (file.filename, file.bytes, file.purpose) == ("mine.jsonl", len(content), "fine-tune")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == content
    assert client.files.wait_for_processing(file.id).status == "processed"


def test_a_deleted_file_is_gone(server: RunningServer) -> None:
    client = server.client()
    file = server.upload()
    assert client.files.delete(file.id).deleted
    assert client.files.list().data == []
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)
    assert list(server.parts.data.file("any").parent.iterdir()) == []


def test_lists_are_paged_through_in_either_order(server: RunningServer) -> None:
    client = server.client()
    made = [server.upload(name=f"{n}.jsonl").id for n in range(5)]
    client.files.create(file=("b.jsonl", b"{}\n"), purpose="batch")
    trained = client.files.list(purpose="fine-tune", limit=2)
    assert [file.id for file in trained] == made[::-1]
    ascending = client.files.list(purpose="fine-tune", order="asc", limit=2)
    assert [file.id for file in ascending] == made
    with pytest.raises(openai.BadRequestError):
        client.files.list(after="file-none")


@pytest.mark.parametrize(
    "name",
    [
        "../../../../tmp/escaped.jsonl",
        "/etc/passwd.jsonl",
        "..\\x.jsonl",
        "a\nb.jsonl",
        "ü/😀.jsonl",
    ],
)
def test_a_name_is_data_and_never_a_path(server: RunningServer, name: str) -> None:
    content = training_file(1)
    answer = server.raw().post(
        "/v1/files", files={"file": (name, content)}, data={"purpose": "fine-tune"}
    )
    assert answer.status_code == 200
    (only,) = server.parts.data.file("any").parent.iterdir()
    assert only.name == answer.json()["id"]
    assert only.read_bytes() == content


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files/..%2f..%2fkaarel-bet.sqlite3/content",
        "/v1/files/%2e%2e%2fserver.lock/content",
        "/v1/files/../server.lock",
        "/v1/models/..%2f..%2fconfig.yaml",
        "/v1/models//etc/passwd",
        "/v1/fine_tuning/jobs/..%2f/events",
    ],
)
def test_an_identifier_is_never_a_path(server: RunningServer, path: str) -> None:
    answer = server.raw().get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "content", "purpose", "told"),
    [
        ("train.txt", b"{}", "fine-tune", "must end in .jsonl"),
        ("train.jsonl", b"", "fine-tune", "empty"),
        ("train.jsonl", b"{}", "vision", "must be one of fine-tune, batch"),
    ],
)
def test_what_can_not_be_used_is_refused(
    server: RunningServer, name: str, content: bytes, purpose: str, told: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=told):
        server.client().files.create(file=(name, content), purpose=purpose)  # pyright: ignore[reportArgumentType]


def test_size_and_number_are_limited(start_server: StartServer) -> None:
    server = start_server(max_files=2, max_file_bytes=2000)
    server.upload(b"x" * 2000)
    with pytest.raises(openai.APIStatusError) as caught:
        server.upload(b"x" * 2001)
    assert caught.value.status_code == 413
    server.upload(b"x")
    with pytest.raises(openai.RateLimitError):
        server.upload(b"x")


def test_a_body_is_counted_as_it_comes_in(start_server: StartServer) -> None:
    server = start_server(max_body_bytes=1000, max_file_bytes=1000)
    chunks = (b"x" * 1000 for _ in range(5000))
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for path, headers in (("/v1/files", form), ("/v1/fine_tuning/jobs", {})):
        try:
            answer = server.raw().post(path, content=chunks, headers=headers)
        except openai.APIConnectionError:
            continue
        assert answer.status_code in (400, 413)
    answer = server.raw().post("/v1/fine_tuning/jobs", content=b"[" + b"1," * 600 + b"1]")
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_file_can_be_given_a_lifetime(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.client()
    file = client.files.create(
        file=("f.jsonl", b"{}"),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.expires_at == file.created_at + 3600
    monkeypatch.setattr("backends.server.files.now", lambda: file.created_at + 3600)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert client.files.list().data == []
    until(lambda: not list(server.parts.data.file("any").parent.iterdir()))
    with pytest.raises(openai.BadRequestError):
        client.files.create(
            file=("f.jsonl", b"{}"),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 1},
        )


def test_what_a_killed_server_left_and_nothing_needs_is_deleted(
    start_server: StartServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    first = start_server(data_dir=str(data))
    training = first.upload()
    job = first.fine_tune(training_file=training.id)
    unfinished = job.model_copy(update={"id": "ftjob-unfinished", "status": "running"})
    record = JobRecord(job=unfinished, suffix="", starts_from=None)
    first.parts.jobs.close()  # so that nobody works on it
    first.parts.records.jobs.add(unfinished.id, record)
    first.stop()
    (data / "files" / "file-lost").write_bytes(b"x")
    (data / "files" / "file-half.partial").write_bytes(b"x")
    for leftover in (f"jobs/{job.id}", "jobs/ftjob-lost", "batches/batch_lost"):
        (data / leftover).mkdir()
    for leftover in ("models/ftjob-lost", "models/.saving-1", f"jobs/{unfinished.id}"):
        (data / leftover).mkdir()
    for name in (job.id, "ftjob-lost", unfinished.id):
        (data / "models" / f".{name}.checkpoint").write_bytes(b"x")

    second = start_server(data_dir=str(data), train=_waits)

    def names(kind: str) -> set[str]:
        return {path.name for path in (data / kind).iterdir()}

    assert names("files") == {training.id, *job.result_files}
    assert names("jobs") == {unfinished.id}
    assert names("batches") == set()
    assert names("models") == {job.id, f".{unfinished.id}.checkpoint"}
    assert second.client().files.content(training.id).content


def _waits(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
    stop.wait()
    raise Stopped
