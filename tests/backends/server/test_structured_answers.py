"""Chats whose answers are held to JSON."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict

from tests.server import RunningServer

SAY = [{"role": "user", "content": "Describe someone as JSON."}]


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")

    country: Literal["Norway", "Peru"]


class Person(BaseModel):
    """What the SDK sends as a strict schema, with a definition that is referred to."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["Ann", "Bob"]
    lives_in: Place | None
    knows: list[Place]


def schema_of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": schema}}


COLOUR = schema_of(
    {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green"]},
            "bright": {"type": "boolean"},
        },
        "required": ["colour", "bright"],
        "additionalProperties": False,
    }
)


def chat(server: RunningServer, **arguments: Any) -> Any:
    arguments = {"model": "llama", "messages": SAY, "max_tokens": 60} | arguments
    return server.client().chat.completions.create(**arguments)


def test_an_answer_fits_its_schema_alone_and_among_others(server: RunningServer) -> None:
    formats = [COLOUR, None, COLOUR, {"type": "json_object"}]
    asked: list[dict[str, Any]] = [
        {"seed": seed, "response_format": wanted, "temperature": 1}
        for seed, wanted in enumerate(formats)
    ]
    alone = [chat(server, **one).choices[0] for one in asked]
    for choice, wanted in zip(alone, formats, strict=True):
        if wanted is COLOUR:
            assert choice.finish_reason == "stop"
            found = json.loads(choice.message.content)
            assert found.keys() == {"colour", "bright"}
            assert found["colour"] in ("red", "green")
    assert alone[3].message.content.startswith("{")
    with ThreadPoolExecutor(4) as pool:
        assert [c.choices[0] for c in pool.map(lambda one: chat(server, **one), asked)] == alone
    texts = {c.message.content for c in chat(server, n=8, response_format=COLOUR).choices}
    assert all(json.loads(text) for text in texts)
    assert len(texts) > 1


def test_the_sdk_parses_what_it_asked_for(server: RunningServer) -> None:
    client = server.client()
    for seed in range(3):
        answer = client.chat.completions.parse(
            model="llama",
            messages=[{"role": "user", "content": "Who?"}],
            response_format=Person,
            seed=seed,
            max_tokens=300,
        )
        assert isinstance(answer.choices[0].message.parsed, Person)


def test_a_stream_of_json_adds_up(server: RunningServer) -> None:
    whole = chat(server, response_format=COLOUR, seed=4)
    chunks = chat(server, response_format=COLOUR, seed=4, stream=True)
    deltas = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(d.delta.content or "" for d in deltas) == whole.choices[0].message.content
    assert deltas[-1].finish_reason == "stop"


def test_log_probabilities_are_the_models_own(server: RunningServer) -> None:
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": 20, "temperature": 0}
    free = chat(server, max_tokens=1, **asked).choices[0].logprobs.content[0]
    held = chat(server, response_format=COLOUR, **asked).choices[0].logprobs.content
    assert held[0].token.startswith("{")
    assert [t.token for t in held[0].top_logprobs] == [t.token for t in free.top_logprobs]


def test_an_answer_that_is_cut_off_says_so(server: RunningServer) -> None:
    answer = chat(server, response_format=COLOUR, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("wanted", "param", "told"),
    [
        (schema_of({"type": "strin"}), "response_format", "strin"),
        (schema_of({"type": "array", "uniqueItems": True}), "response_format", "uniqueItems"),
        (schema_of({"$ref": "https://example.com/s"}), "response_format", "example.com"),
        (schema_of({"type": "string", "pattern": "(?=a)b"}), "response_format", "look-around"),
        (schema_of("object"), "response_format.json_schema.schema", "dictionary"),
        ({"type": "json_schema"}, "response_format", "json_schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "a b"}},
            "response_format.json_schema.name",
            "match pattern",
        ),
    ],
)
def test_a_schema_that_can_not_be_followed_is_refused_in_one_line(
    server: RunningServer, wanted: Any, param: str, told: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        chat(server, response_format=wanted)
    assert caught.value.param == param
    assert "\n" not in caught.value.message
