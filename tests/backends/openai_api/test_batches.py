"""Asking by the Batch API: submitted once, read whole, whatever happens on the way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backends.data import GenerationQuery, Message, ScoringQuery, ScoringResult
from backends.errors import RefusedError, ServiceError
from backends.openai_api import connection as connections
from backends.openai_api.asking import Asker, Request
from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.creation import Waits
from backends.openai_api.scoring.batch_files import Line, in_files
from backends.openai_api.scoring.batches import Batches
from backends.openai_api.scoring.top import Top
from backends.openai_api.settings import OpenAISettings, ScoringSettings
from tests.backends.openai_api.conftest import Connect
from tests.backends.openai_api.toy_service import ToyService, encode
from tests.server import RunningServer

QUERIES = [
    *(
        ScoringQuery(
            id=f"q{i}",
            messages=(Message(role="user", content=f"Where to, {i}?"),),
            candidates={"a": "Paris", "b": "Peru"},
        )
        for i in range(4)
    ),
    ScoringQuery(id="text", prompt="2 + 2 =", candidates={"a": " 4"}),
]

Then = Callable[[dict[str, Any]], None]


class BatchService(ToyService):
    """Has files and batches besides; a batch is done at the second look.

    `loses`: the create gets no answer although a batch was made. `expired`: how many requests of each
    batch so far are not done. `halves`: how often half a file comes. `refuses`: a text; a request with
    it in is answered with an error, of that `code`.
    """

    def __init__(self) -> None:
        super().__init__(echo=False)
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.loses = False
        self.fails = False
        self.expired: list[int] = []
        self.ends_as = "expired"
        self.hides = 0
        self.halves = 0
        self.refuses = ""
        self.code: str | None = None
        self.n_asked = 0

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self._routed)

    def _routed(self, request: httpx2.Request) -> httpx2.Response:
        path, method = request.url.path.removeprefix("/v1"), request.method
        if path == "/files" and method == "POST":
            return self._upload(request.content)
        if path.endswith("/content"):
            content = self.files.get(path.split("/")[2])
            missing = httpx2.Response(404, json={"error": {"message": "no file"}})
            if content and self.halves:
                self.halves -= 1
                return httpx2.Response(200, content=content[: len(content) // 2])
            return missing if content is None else httpx2.Response(200, content=content)
        if path == "/batches" and method == "POST":
            batch = self._create(json.loads(request.content))
            return httpx2.Response(500 if self.loses else 200, json=batch)
        if path in ("/batches", "/files"):
            listed = list(self.batches.values())[::-1] if path == "/batches" else []
            return httpx2.Response(200, json={"object": "list", "data": listed, "has_more": False})
        if path.startswith("/batches/") and self.hides:
            self.hides -= 1
            return httpx2.Response(404, json={"error": {"message": "no such batch"}})
        if path.startswith("/batches/"):
            return httpx2.Response(200, json=self._look(path.split("/")[2]))
        return super()._answer(request)

    def _upload(self, content: bytes) -> httpx2.Response:
        boundary = content.split(b"\r\n", 1)[0]
        [part] = [p for p in content.split(boundary) if b"filename=" in p]
        name = f"file-{len(self.files)}"
        self.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        return httpx2.Response(200, json={"id": name, "object": "file"})

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        batch = {**body, "id": f"batch_{len(self.batches)}", "status": "validating"}
        batch |= {"object": "batch", "created_at": 2_000_000_000}
        self.batches[batch["id"]] = batch
        return batch

    def _look(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches[batch_id]
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress" and self.fails:
            errors = {"object": "list", "data": [{"code": "x", "message": "line 1 is bad"}]}
            batch |= {"status": "failed", "errors": errors}
        elif batch["status"] == "in_progress":
            self._finish(batch)
        return batch

    def _finish(self, batch: dict[str, Any]) -> None:
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        number = list(self.batches).index(batch["id"])
        n_expired = self.expired[number] if number < len(self.expired) else 0
        outcomes = [self._outcome(line) for line in lines[n_expired:]]
        expired = {"code": "batch_expired", "message": "not done within 24 h"}
        lost = [
            {"custom_id": line["custom_id"], "response": None, "error": expired}
            for line in lines[:n_expired]
        ]
        good = [o for o in outcomes if o["response"]["status_code"] == 200]
        bad = [o for o in outcomes if o not in good] + lost
        for name, held in (("output_file_id", good[::-1]), ("error_file_id", bad)):
            if held:
                batch[name] = f"{batch['id']}-{name}"
                self.files[batch[name]] = b"".join(json.dumps(o).encode() + b"\n" for o in held)
        batch["status"] = self.ends_as if lost else "completed"

    def _outcome(self, line: dict[str, Any]) -> dict[str, Any]:
        self.n_asked += 1
        answer = self.answer(line["url"], line["body"])
        if self.refuses and self.refuses in json.dumps(line["body"]):
            answer = {"error": {"message": "no such words here", "code": self.code}}
        response = {"status_code": 400 if "error" in answer else 200, "body": answer}
        return {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}


Score = Callable[..., dict[str, ScoringResult]]


@pytest.fixture
def score(connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    """Scores in a process of its own, as it were: all that lasts is on disk."""
    monkeypatch.setattr(connections, "_wait", lambda _state: 0.01)

    def score(service: BatchService, n: int | None = None) -> dict[str, ScoringResult]:
        connection = connect(service)
        waits = Waits(settle=0.05, look=0.01)
        batches = Batches(
            Asker(connection, 4), 4, directory=tmp_path, poll_seconds=0.01, waits=waits
        )
        results = connection.iterate(batches.ask(Top("toy", encode).prepare, QUERIES))
        return {r.id: r for r, _ in zip(results, range(n or len(QUERIES)), strict=False)}

    return score


def one_by_one(connect: Connect) -> dict[str, ScoringResult]:
    connection = connect(ToyService(echo=False))
    asker, top = Asker(connection, 4), Top("toy", encode)

    async def ask(query: ScoringQuery) -> ScoringResult:
        prepared = await top.prepare(query)
        return prepared.read(await asker.ask("x", prepared.request))

    return {query.id: connection.run(ask(query)) for query in QUERIES}


def test_batches_give_the_scores_that_single_requests_give(score: Score, connect: Connect) -> None:
    service = BatchService()
    assert score(service) == one_by_one(connect)
    endpoints = [batch["endpoint"] for batch in service.batches.values()]
    assert endpoints == ["/v1/chat/completions", "/v1/completions"]


def test_a_killed_process_finds_its_batches_and_submits_nothing_again(
    score: Score, connect: Connect
) -> None:
    service = BatchService()
    assert len(score(service, n=2)) == 2  # and then it is killed
    assert score(service) == one_by_one(connect)
    assert len(service.batches) == 2
    assert service.n_asked == len(QUERIES)


def test_a_batch_whose_create_got_no_answer_is_found(score: Score, connect: Connect) -> None:
    service = BatchService()
    service.loses = True
    assert score(service) == one_by_one(connect)
    assert len(service.batches) == 2


def test_a_batch_that_can_not_be_found_is_not_sent_twice_by_the_same_process(
    score: Score, connect: Connect
) -> None:
    class Forgetful(BatchService):
        def _create(self, body: dict[str, Any]) -> dict[str, Any]:
            return super()._create({**body, "metadata": {}})

    service = Forgetful()
    service.loses = True
    with pytest.raises(ServiceError, match="did not say whether it created the batch"):
        score(service)
    assert len(service.batches) == 1
    service.loses = False
    assert score(service) == one_by_one(connect)  # the next start may


def test_a_batch_that_somebody_cancelled_is_not_bought_again_without_being_asked(
    score: Score, connect: Connect
) -> None:
    service = BatchService()
    service.expired = [3, 0]
    service.ends_as = "cancelled"
    with pytest.raises(ServiceError, match=r"cancelled; .*Start again to ask the other 3 requests"):
        score(service)
    assert len(service.batches) == 2
    service.ends_as = "expired"
    assert score(service) == one_by_one(connect)  # the next start is asked for


def test_a_batch_that_is_not_found_for_a_moment_is_not_bought_again(
    score: Score, connect: Connect
) -> None:
    service = BatchService()
    service.hides = 2
    assert score(service) == one_by_one(connect)
    assert len(service.batches) == 2


def test_requests_that_expired_are_asked_again_and_no_others(
    score: Score, connect: Connect
) -> None:
    service = BatchService()
    service.expired = [3, 0, 1]
    assert score(service) == one_by_one(connect)
    assert len(service.batches) == 4
    assert service.n_asked == len(QUERIES)


def test_requests_that_always_expire_are_reported(score: Score) -> None:
    service = BatchService()
    service.expired = [100] * 100
    with pytest.raises(ServiceError, match="5 requests were not done in 3 batches"):
        score(service)


def test_a_refused_request_is_named_after_everything_else_is_handed_out(score: Score) -> None:
    service = BatchService()
    service.refuses = "Where to, 2?"
    with pytest.raises(ServiceError, match="query 'q2': no such words here"):
        score(service)
    # The others are not asked again once the reason is gone.
    service.refuses = ""
    assert len(score(service)) == len(QUERIES)
    assert service.n_asked == len(QUERIES) + 1


def test_what_is_refused_for_its_content_holds_up_nothing_that_expired(score: Score) -> None:
    service = BatchService()
    service.refuses, service.code = "Where to, 2?", "content_filter"
    service.expired = [1, 1]
    with pytest.raises(RefusedError, match="query 'q2': no such words here") as error:
        score(service)
    assert error.value.refused.keys() == {"q2"}
    service.refuses = ""
    assert len(score(service)) == len(QUERIES)
    assert service.n_asked == len(QUERIES) + 1


def test_a_batch_that_the_service_refuses_is_submitted_anew_by_the_next_start(
    score: Score,
) -> None:
    service = BatchService()
    service.fails = True
    with pytest.raises(ServiceError, match=r"batch_\d failed: line 1 is bad"):
        score(service)
    service.fails = False
    assert len(score(service)) == len(QUERIES)


def test_results_that_break_off_are_fetched_again(score: Score, connect: Connect) -> None:
    service = BatchService()
    service.halves = 3
    assert score(service) == one_by_one(connect)
    assert len(service.batches) == 2


def test_results_that_the_service_has_deleted_are_asked_for_anew(score: Score) -> None:
    service = BatchService()
    before = score(service)
    for name in [name for name in service.files if name.startswith("batch_")]:
        del service.files[name]
    assert score(service) == before
    assert len(service.batches) == 4


def test_files_stay_within_the_services_limits() -> None:
    lines = [Line.of(Request.chat({"model": "m", "n": n})) for n in range(10)]
    assert [len(file) for file in in_files(lines, most_requests=4)] == [4, 4, 2]
    size = len(lines[0].text)
    assert [len(file) for file in in_files(lines, most_bytes=3 * size + 1)] == [3, 3, 3, 1]
    assert len({line.id for line in lines}) == 10
    assert Line.of(Request.chat({"n": 3, "model": "m"})) == lines[3]


def test_answers_by_batch_are_those_of_single_requests(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    queries = [
        GenerationQuery(
            id=f"{n}",
            messages=(Message(role="user", content=f"Say {n}"),),
            max_tokens=4,
            temperature=1.0,
            n_samples=2,
            seed=n,
        )
        for n in range(3)
    ]

    def texts(*, batch: bool) -> dict[str, tuple[str, ...]]:
        backend = OpenAIBackend(
            OpenAISettings(
                model=server.parts.models.base,
                base_url=server.url,
                scoring=ScoringSettings(batch=batch),
            )
        )
        return {one.id: one.texts for one in backend.generate(backend.base_model, queries)}

    assert texts(batch=True) == texts(batch=False)
    assert len(server.client().batches.list().data) == 1
