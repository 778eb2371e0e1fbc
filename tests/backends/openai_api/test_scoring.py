"""Every way of scoring, through the real client, against a toy model whose probabilities are known."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import pytest

from backends.data import LogProbability, Message, ScoringQuery, ScoringResult
from backends.errors import DataError, ServiceError, UnsupportedError
from backends.openai_api.asking import Asker
from backends.openai_api.scoring.scoring import Scoring
from backends.openai_api.settings import ScoringSettings
from tests.backends.openai_api.conftest import Connect
from tests.backends.openai_api.toy_service import ToyService, encode, next_tokens, render, truth


def chat(name: str, text: str, **candidates: str) -> ScoringQuery:
    return ScoringQuery(
        id=name, messages=(Message(role="user", content=text),), candidates=candidates
    )


CHATS = [
    chat(f"q{i}", f"Where to, {i}?", a="Paris", b="New Delhi", c="New York", d="Peru", e="Zoé")
    for i in range(40)
]
TEXTS = [
    ScoringQuery(id="text", prompt="2 + 2 =", candidates={"a": " 4", "b": " 5"}),
    ScoringQuery(id="space", prompt="Go to ", candidates={"a": "Paris", "b": "Rome"}),
]


def score(
    connect: Connect, service: ToyService, queries: Sequence[ScoringQuery], **settings: object
) -> dict[str, ScoringResult]:
    connection = connect(service)
    chosen = ScoringSettings.model_validate({"concurrency": 4, **settings})
    scoring = Scoring(Asker(connection, chosen.concurrency), chosen, encode)
    return {r.id: r for r in connection.iterate(scoring.score("toy", queries))}


def inside(interval: LogProbability, logp: float) -> bool:
    return interval.low - 1e-9 <= logp <= interval.high + 1e-9


def assert_all_inside(queries: Sequence[ScoringQuery], results: dict[str, ScoringResult]) -> None:
    assert results.keys() == {query.id for query in queries}
    for query in queries:
        found = results[query.id].candidates
        assert list(found) == list(query.candidates)
        for label, text in query.candidates.items():
            exact = truth(query, text)
            assert inside(found[label].total, sum(exact)), (query.id, label)
            assert inside(found[label].first_token, exact[0]), (query.id, label)
            assert found[label].n_tokens == len(exact)


def test_a_server_with_echo_gives_exact_scores_one_request_a_query(connect: Connect) -> None:
    service = ToyService()
    queries = [*CHATS[:5], *TEXTS]
    results = score(connect, service, queries)
    assert_all_inside(queries, results)
    for result in results.values():
        assert result.method == "echo"
        assert all(s.total.low == s.total.high for s in result.candidates.values())
    canaries = 2
    assert len(service.asked("/v1/completions")) == len(queries) + canaries


def test_without_echo_scores_are_intervals_that_hold_the_truth_and_the_user_is_told(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    service = ToyService(echo=False)
    with caplog.at_level(logging.WARNING):
        results = score(connect, service, [*CHATS, *TEXTS])
    assert "intervals" in caplog.text
    assert_all_inside([*CHATS, *TEXTS], results)
    assert {r.method for r in results.values()} == {"top-20", "top-5"}
    assert len(service.asked("/v1/chat/completions")) == len(CHATS)
    totals = [s.total for r in results.values() for s in r.candidates.values()]
    assert any(t.low == t.high for t in totals)
    assert any(t.low > -math.inf and t.low < t.high for t in totals)
    assert any(t.low == -math.inf for t in totals)
    assert all(t.high > -math.inf for t in totals)


def test_an_answer_is_asked_for_as_long_as_the_longest_candidate(connect: Connect) -> None:
    service = ToyService(echo=False)
    query = chat("q", "Where?", a="Paris", b="New York!", c="x" * 500)
    for candidates, length in ((["a"], 1), (["a", "b"], 3), (["a", "c"], 64)):
        chosen = {label: query.candidates[label] for label in candidates}
        score(connect, service, [query.model_copy(update={"candidates": chosen})], method="top")
        assert service.asked("/v1/chat/completions")[-1]["max_tokens"] == length


def test_asked_for_echo_where_there_is_none_it_is_refused(connect: Connect) -> None:
    with pytest.raises(UnsupportedError, match=r"openai\.scoring\.method"):
        score(connect, ToyService(echo=False), CHATS, method="echo")


def test_training_weights_are_not_sent(connect: Connect) -> None:
    service = ToyService(echo=False)
    messages = (
        Message(role="user", content="a"),
        Message(role="assistant", content="b", weight=0),
        Message(role="user", content="c"),
    )
    score(connect, service, [ScoringQuery(id="q", messages=messages, candidates={"a": "Paris"})])
    assert all(
        m.keys() == {"role", "content"}
        for m in service.asked("/v1/chat/completions")[0]["messages"]
    )


def test_a_prefill_is_scored_by_echo_and_refused_where_there_is_none(connect: Connect) -> None:
    begun = CHATS[0].model_copy(update={"prefill": "New", "candidates": {"a": " Delhi", "b": "!"}})
    [result] = score(connect, ToyService(), [begun]).values()
    context = encode(render([{"role": "user", "content": "Where to, 0?"}]) + "New")
    [token] = encode(" Delhi")
    assert result.candidates["a"].total.low == pytest.approx(next_tokens(context)[token])
    for service, settings in ((ToyService(echo=False), {}), (ToyService(), {"method": "top"})):
        with pytest.raises(UnsupportedError, match=r"query 'q0': .*prefill.*--backend local"):
            score(connect, service, [begun], **settings)
        assert not service.asked("/v1/chat/completions")


def test_a_chat_template_that_strips_a_prefills_space_is_found_out(connect: Connect) -> None:
    begun = CHATS[0].model_copy(update={"prefill": "Go ", "candidates": {"a": "Rome"}})
    assert score(connect, ToyService(), [begun])
    with pytest.raises(DataError, match=r"query 'q0', prefill: .*strips"):
        score(connect, ToyService(strips=True), [begun])


def test_a_chat_template_that_strips_a_candidates_space_is_found_out(connect: Connect) -> None:
    query = chat("q", "Where?", a=" Paris")
    assert_all_inside([query], score(connect, ToyService(), [query]))
    with pytest.raises(DataError, match=r"query 'q', candidate 'a': .*strips"):
        score(connect, ToyService(strips=True), [query])


@pytest.mark.parametrize("method", ["echo", "top"])
def test_a_boundary_inside_a_token_is_refused(connect: Connect, method: str) -> None:
    query = ScoringQuery(id="q", prompt="Pe", candidates={"a": "ru"})
    with pytest.raises(DataError, match=r"query 'q', candidate '\w+': the boundary"):
        score(connect, ToyService(), [query], method=method)


class Changed(ToyService):
    """Answers something else than the wire format says."""

    def __init__(self, change: str) -> None:
        super().__init__(echo=change == "drops a choice")
        self._change = change

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = super().answer(path, body)
        if "choices" not in answer:
            return answer
        if self._change == "drops a choice" and len(answer["choices"]) > 1:
            answer["choices"].pop()
        elif self._change == "no logprobs":
            answer["choices"][0]["logprobs"] = None
        elif self._change == "no choices":
            del answer["choices"]
        return answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drops a choice", "query 'q0': 5 prompts were sent, 4 came back"),
        ("no logprobs", "no log-probabilities"),
        ("no choices", "not in the wire format"),
    ],
)
def test_an_answer_without_what_was_asked_for_is_one_clear_line(
    connect: Connect, change: str, message: str
) -> None:
    with pytest.raises(ServiceError, match=message):
        score(connect, Changed(change), CHATS[:1])


def test_biased_sampling_narrows_what_is_not_listed_around_the_truth(connect: Connect) -> None:
    tail = {"sample": True, "n_samples": 300}
    queries = [chat(f"q{i}", f"Who, {i}?", a="Paris", z="Zz", y="q") for i in range(6)]
    service = ToyService(echo=False)
    wide = score(connect, service, queries)
    narrow = score(connect, service, queries, tail=tail)
    assert_all_inside(queries, narrow)
    narrowed = [r for r in narrow.values() if r.method == "top-20+biased-300"]
    assert narrowed
    for result in narrowed:
        for label, found in result.candidates.items():
            before = wide[result.id].candidates[label]
            if before.first_token.low == -math.inf:
                assert found.first_token.high - found.first_token.low < 2
                assert found.total.high <= before.total.high
    assert max(body["n"] for body in service.asked("/v1/chat/completions") if "n" in body) == 128


@pytest.mark.parametrize(
    ("bias", "reason"),
    [("ignored", "no effect"), ("shows", "with the bias in them"), ("weak", "another effect")],
)
def test_without_its_canary_there_is_no_biased_sampling(
    connect: Connect, caplog: pytest.LogCaptureFixture, bias: str, reason: str
) -> None:
    service = ToyService(echo=False, bias=bias)
    results = score(connect, service, CHATS[:2], tail={"sample": True})
    assert reason in caplog.text
    assert {r.method for r in results.values()} == {"top-20"}


def test_the_toy_model_answers_with_candidates() -> None:
    """Else the tests above would show nothing of paths of several tokens."""
    contexts = [encode(render([{"role": "user", "content": f"Where to, {i}?"}])) for i in range(40)]
    greedy = [max(n, key=n.__getitem__) for n in map(next_tokens, contexts)]
    assert encode("New")[0] in greedy
