import pytest

from backends.data import GenerationQuery, GenerationResult, Message, join_parts
from backends.errors import RefusedError, ServiceError
from backends.openai_api.asking import Asker
from backends.openai_api.generation import Generation
from backends.openai_api.settings import ScoringSettings
from tests.backends.openai_api.conftest import Connect
from tests.backends.openai_api.toy_service import ToyService

CHAT = GenerationQuery(
    id="chat", messages=(Message(role="user", content="Where to?"),), max_tokens=3
)
TEXT = GenerationQuery(
    id="text", prompt="2 + 2 =", max_tokens=2, temperature=1.0, n_samples=3, seed=7
)


def generate(
    connect: Connect, service: ToyService, *queries: GenerationQuery
) -> dict[str, GenerationResult]:
    connection = connect(service)
    results = Generation(Asker(connection, 2), ScoringSettings(concurrency=2)).generate(
        "toy", queries
    )
    return {r.id: r for r in connection.iterate(results)}


def test_chats_and_texts_are_continued_as_the_query_says(connect: Connect) -> None:
    service = ToyService()
    results = generate(connect, service, CHAT, TEXT)

    assert len(results["chat"].texts) == 1
    assert results["chat"].prompt == "user: Where to?"
    assert len(results["text"].texts) == 3
    assert results["text"].prompt == "2 + 2 ="
    [chat] = service.asked("/v1/chat/completions")
    assert (chat["max_tokens"], chat["temperature"], chat["n"]) == (3, 0, 1)
    [text] = service.asked("/v1/completions")
    assert (text["max_tokens"], text["temperature"], text["n"], text["seed"]) == (2, 1, 3, 7)


def test_texts_that_do_not_come_back_are_missed(connect: Connect) -> None:
    class Stingy(ToyService):
        def answer(self, path: str, body: dict[str, object]) -> dict[str, object]:
            return super().answer(path, {**body, "n": 1})

    with pytest.raises(ServiceError, match="query 'text': 1 texts came back for 3 asked"):
        generate(connect, Stingy(), TEXT)


def test_more_samples_than_a_request_may_ask_for_are_asked_in_several(connect: Connect) -> None:
    service = ToyService()
    connection = connect(service)
    many = TEXT.model_copy(update={"n_samples": 300, "first_sample": 10})
    generation = Generation(Asker(connection, 2), ScoringSettings(concurrency=2))
    parts = list(connection.iterate(generation.generate("toy", [many])))
    assert sorted(part.first_sample for part in parts) == [10, 138, 266]
    assert len(join_parts(parts)["text"].texts) == 300
    asked = service.asked("/v1/completions")
    assert sorted((body["n"], body["seed"]) for body in asked) == [(44, 273), (128, 17), (128, 145)]


def test_what_is_refused_for_its_content_keeps_nobody_from_being_answered(connect: Connect) -> None:
    class Filtered(ToyService):
        def answer(self, path: str, body: dict[str, object]) -> dict[str, object]:
            if "worse" in str(body["messages"]):
                message = "the prompt triggered the content management policy"
                return {"error": {"message": message, "type": None, "code": "content_filter"}}
            return super().answer(path, body)

    connection = connect(Filtered())
    generation = Generation(Asker(connection, 1), ScoringSettings(concurrency=1))
    worse = Message(role="user", content="worse")
    queries = [
        CHAT.model_copy(update={"id": name, "messages": (worse,) if is_worse else CHAT.messages})
        for name, is_worse in [("a", False), ("b", True), ("c", False), ("d", True)]
    ]
    results = []
    with pytest.raises(
        RefusedError, match=r"query .b.: .*content management.*; 2 queries"
    ) as error:
        results += connection.iterate(generation.generate("toy", queries))
    assert error.value.refused.keys() == {"b", "d"}
