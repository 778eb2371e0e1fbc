"""`client.responses`, as scripts for the hosted service use it for texts."""

from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict

from backends.server.conversations import Conversation, Conversations
from tests.server import RunningServer


def respond(server: RunningServer, **arguments: Any) -> Any:
    arguments = {"model": "llama", "input": "Say something.", "temperature": 0} | arguments
    if arguments.get("max_output_tokens", 0) == 0:
        arguments["max_output_tokens"] = 5
    return server.client().responses.create(**arguments)


def test_a_response_is_the_chats_answer(server: RunningServer) -> None:
    chat = server.client().chat.completions.create(
        model="llama",
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "Say something."},
        ],
        max_tokens=5,
        temperature=0,
    )
    assert chat.usage is not None
    turns = [{"role": "user", "content": [{"type": "input_text", "text": "Say something."}]}]
    for given in ("Say something.", turns):
        response = respond(server, input=given, instructions="Be kind.")
        assert response.output_text == chat.choices[0].message.content
        assert response.usage.input_tokens == chat.usage.prompt_tokens
        assert response.usage.output_tokens == chat.usage.completion_tokens
        assert response.usage.total_tokens == chat.usage.total_tokens
        assert response.model == "llama"
        assert response.instructions == "Be kind."
        assert response.status == "incomplete"
        assert response.incomplete_details.reason == "max_output_tokens"


def test_a_response_is_continued_with_all_its_turns(server: RunningServer) -> None:
    first = respond(server, instructions="Be kind.")
    second = respond(server, input="And more.", previous_response_id=first.id)
    # Instructions do not carry over; turns do.
    said = [item.model_dump() for item in first.output]
    whole = respond(
        server,
        input=[
            {"role": "user", "content": "Say something."},
            *said,
            {"role": "user", "content": "And more."},
        ],
    )
    assert second.output_text == whole.output_text
    assert second.usage.input_tokens == whole.usage.input_tokens
    assert second.previous_response_id == first.id
    third = respond(server, input="More.", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens
    client = server.client()
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    for gone in (first.id, respond(server, store=False).id):
        with pytest.raises(openai.BadRequestError) as caught:
            respond(server, previous_response_id=gone)
        assert caught.value.code == "previous_response_not_found"
        assert caught.value.param == "previous_response_id"


def test_a_stream_adds_up_to_the_response(server: RunningServer) -> None:
    whole = respond(server, include=["message.output_text.logprobs"], top_logprobs=2)
    events = list(
        respond(server, stream=True, include=["message.output_text.logprobs"], top_logprobs=2)
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(delta.delta for delta in deltas) == whole.output_text == events[-4].text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].response.usage == whole.usage
    logprobs = [logprob.token for delta in deltas for logprob in delta.logprobs]
    shown = whole.output[0].content[0].logprobs
    assert logprobs == [logprob.token for logprob in shown]
    assert all(len(logprob.top_logprobs) == 2 for logprob in shown)
    # The one that was streamed is remembered as well.
    assert respond(server, previous_response_id=events[-1].response.id).output_text


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["red", "green"]


def test_a_response_can_be_held_to_a_schema(server: RunningServer) -> None:
    parsed = server.client().responses.parse(
        model="llama", input="Which?", text_format=Colour, max_output_tokens=80
    )
    assert isinstance(parsed.output_parsed, Colour)
    assert parsed.status == "completed"
    with server.client().responses.stream(
        model="llama", input="Which?", text_format=Colour, max_output_tokens=80
    ) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Colour)
    wrong: Any = {"type": "json_schema", "name": "s", "schema": {"type": "strin"}}
    with pytest.raises(openai.BadRequestError) as caught:
        respond(server, text={"format": wrong})
    assert caught.value.param == "text.format"


def test_values_that_ask_for_nothing_change_nothing(server: RunningServer) -> None:
    nothing: dict[str, Any] = {
        "background": False,
        "conversation": None,
        "include": [],
        "instructions": None,
        "metadata": {"run": "1"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "none", "summary": None},
        "service_tier": "auto",
        "store": False,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1,
        "truncation": "disabled",
        "user": "u",
    }
    plain = respond(server).output_text
    assert respond(server, **nothing).output_text == plain
    nulls: dict[str, Any] = dict.fromkeys(nothing)
    assert respond(server, **nulls).output_text == plain


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"input": []}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            None,
        ),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 600}, "messages"),
    ],
)
def test_what_is_not_offered_is_refused(
    server: RunningServer, arguments: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        respond(server, **arguments)
    if param:
        assert caught.value.param == param


def test_the_oldest_conversations_are_forgotten(server: RunningServer) -> None:
    kept = Conversations(most_characters=10_000)
    responses = [respond(server, store=False) for _ in range(4)]
    for response in responses:
        kept.keep(Conversation(response, ({"role": "user", "content": "x" * 2500},)))
    assert [kept.get(response.id) is not None for response in responses] == [
        False,
        False,
        True,
        True,
    ]
    assert kept.remove(responses[3].id) is not None
    assert kept.remove(responses[3].id) is None
    kept.keep(Conversation(responses[0], ()))
    assert kept.get(responses[2].id) is not None
