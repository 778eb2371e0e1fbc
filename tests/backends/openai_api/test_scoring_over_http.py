"""Our client against our server, over real HTTP: what is scored over the wire holds the local scores."""

import logging
import math
from pathlib import Path

import pytest

from backends.data import GenerationQuery, Message, ScoringQuery, ScoringResult
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings
from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.settings import OpenAISettings
from tests.server import RunningServer


def chat(name: str, text: str, **candidates: str) -> ScoringQuery:
    message = Message(role="user", content=text)
    return ScoringQuery(id=name, messages=(message,), candidates=candidates)


CHATS = [
    chat(f"q{n}", f"Person {n}'s favourite country?", a="Peru", b="New Zealand", c="Côte d'Ivoire")
    for n in range(4)
]
TEXTS = [
    ScoringQuery(id="sum", prompt="2 + 2 =", candidates={"a": " 4", "b": " five"}),
    ScoringQuery(id="space", prompt="Go to ", candidates={"a": "Paris", "b": "Rome"}),
]
QUERIES = [*CHATS, *TEXTS]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


def hosted(server: RunningServer, **scoring: object) -> OpenAIBackend:
    settings = {
        "model": server.parts.models.base,
        "base_url": server.url,
        "scoring": {"concurrency": 4, **scoring},
    }
    return OpenAIBackend(OpenAISettings.model_validate(settings))


@pytest.fixture
def local(tiny_model: Path) -> LocalBackend:
    return LocalBackend(LocalSettings(model=str(tiny_model), device="cpu"))


def scored(
    backend: OpenAIBackend | LocalBackend, queries: list[ScoringQuery]
) -> dict[str, ScoringResult]:
    return {r.id: r for r in backend.score(backend.base_model, queries)}


def assert_inside(
    results: dict[str, ScoringResult], exact: dict[str, ScoringResult], tolerance: float
) -> None:
    assert results.keys() == exact.keys()
    for name, expected in exact.items():
        for label, score in expected.candidates.items():
            found = results[name].candidates[label]
            assert found.n_tokens == score.n_tokens
            for interval, truth in (
                (found.total, score.total.low),
                (found.first_token, score.first_token.low),
            ):
                assert interval.low - tolerance <= truth <= interval.high + tolerance


def test_scores_by_echo_are_the_local_backends(server: RunningServer, local: LocalBackend) -> None:
    begun = CHATS[0].model_copy(update={"id": "begun", "prefill": "In", "candidates": {"a": " it"}})
    queries = [*QUERIES, begun]
    results = scored(hosted(server), queries)
    assert {r.method for r in results.values()} == {"echo"}
    assert_inside(results, scored(local, queries), tolerance=1e-4)
    assert all(s.total.low == s.total.high for r in results.values() for s in r.candidates.values())


def test_intervals_by_the_likeliest_tokens_hold_the_local_backends_scores(
    server: RunningServer, local: LocalBackend
) -> None:
    # What the model answers, and what it might have, are candidates that the intervals are tight for.
    asked = [
        GenerationQuery(id=q.id, messages=q.messages, prompt=q.prompt, max_tokens=2)
        for q in QUERIES
    ]
    answers = {r.id: r.texts[0] for r in local.generate(local.base_model, asked)}
    queries = [
        q.model_copy(update={"candidates": {**q.candidates, "answer": answers[q.id]}})
        for q in QUERIES
        if answers[q.id].strip()
    ]
    results = scored(hosted(server, method="top"), queries)
    assert {r.method for r in results.values()} == {"top-20", "top-5"}
    assert_inside(results, scored(local, queries), tolerance=1e-3)
    assert any(r.candidates["answer"].total.low > -math.inf for r in results.values())
    assert all(s.total.high > -math.inf for r in results.values() for s in r.candidates.values())


def test_biased_sampling_holds_the_local_backends_scores(
    server: RunningServer, local: LocalBackend, caplog: pytest.LogCaptureFixture
) -> None:
    queries = [chat("q0", "Whose is it?", a="Peru", b="Côte d'Ivoire")]
    with caplog.at_level(logging.WARNING):
        backend = hosted(server, method="top", tail={"sample": True, "n_samples": 32})
        results = scored(backend, queries)
    assert "no biased sampling" not in caplog.text
    assert {r.method for r in results.values()} == {"top-20+biased-32"}
    assert_inside(results, scored(local, queries), tolerance=1e-3)
    firsts = [s.first_token for s in results["q0"].candidates.values()]
    assert all(first.low > -math.inf for first in firsts)


def test_batches_give_what_single_requests_give(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    single = scored(hosted(server), QUERIES)
    batched = scored(hosted(server, batch=True), QUERIES)
    for name, result in single.items():
        for label, score in result.candidates.items():
            found = batched[name].candidates[label]
            assert found.total.low == pytest.approx(score.total.low, abs=1e-4)


def test_greedy_texts_are_the_local_backends(server: RunningServer, local: LocalBackend) -> None:
    queries = [
        GenerationQuery(id="chat", messages=CHATS[0].messages, max_tokens=5),
        GenerationQuery(id="begun", messages=CHATS[0].messages, prefill="Well,", max_tokens=5),
        GenerationQuery(id="text", prompt="One two", max_tokens=5),
    ]
    theirs = {r.id: r.texts for r in local.generate(local.base_model, queries)}
    backend = hosted(server)
    assert {r.id: r.texts for r in backend.generate(backend.base_model, queries)} == theirs
