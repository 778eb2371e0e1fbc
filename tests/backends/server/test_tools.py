"""Chats with functions to call, by a model whose chat template has a place for them."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from backends.local.settings import LocalSettings
from tests.server import RunningServer, StartServer

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"$ref": "#/$defs/place"},
                "days": {"enum": [1, 2]},
            },
            "required": ["place", "days"],
            "additionalProperties": False,
            "$defs": {"place": {"enum": ["Oslo", "Lima"]}},
        },
        "strict": True,
    },
}
TIME: Any = {
    "type": "function",
    "function": {
        "name": "time",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
ASK = [{"role": "user", "content": "Which weather?"}]


@pytest.fixture
def caller(
    start_server: StartServer, small_training: LocalSettings, model_with_tools: Path
) -> RunningServer:
    local = small_training.model_copy(update={"model": str(model_with_tools)})
    return start_server(local=local)


def chat(server: RunningServer, **arguments: Any) -> Any:
    base = server.parts.models.base
    arguments = {"model": base, "messages": ASK, "max_tokens": 80, "seed": 3} | arguments
    return server.client().chat.completions.create(**arguments)


def test_a_required_call_has_the_wires_shape_and_its_schema(caller: RunningServer) -> None:
    answer = chat(
        caller, tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False, n=4
    )
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert call.id.startswith("call_")
        arguments = json.loads(call.function.arguments)
        if call.function.name == "weather":
            assert arguments["place"] in ("Oslo", "Lima")
            assert arguments["days"] in (1, 2)
        else:
            assert (call.function.name, arguments) == ("time", {})
    assert len({choice.message.tool_calls[0].id for choice in answer.choices}) == 4


def test_a_named_function_is_called(caller: RunningServer) -> None:
    named = {"type": "function", "function": {"name": "time"}}
    (choice,) = chat(caller, tools=[WEATHER, TIME], tool_choice=named).choices
    assert choice.message.tool_calls[0].function.name == "time"
    assert choice.finish_reason == "stop"


def test_a_stream_has_the_call_as_well(caller: RunningServer) -> None:
    asked: dict[str, Any] = {
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    whole = chat(caller, **asked).choices[0]
    pieces = [piece for chunk in chat(caller, stream=True, **asked) for piece in chunk.choices]
    calls = [call for piece in pieces for call in piece.delta.tool_calls or []]
    (call,) = calls
    assert call.index == 0
    made = whole.message.tool_calls[0].function
    assert (call.function.name, call.function.arguments) == (made.name, made.arguments)
    assert pieces[-1].finish_reason == "tool_calls"
    assert not any(piece.delta.content for piece in pieces)


def test_a_free_answer_is_a_text_or_a_call(caller: RunningServer) -> None:
    free = chat(caller, tools=[WEATHER], max_tokens=8).choices[0]
    assert free.message.tool_calls is None
    assert free.message.content
    streamed = chat(caller, tools=[WEATHER], max_tokens=8, stream=True)
    pieces = [piece.delta.content or "" for chunk in streamed for piece in chunk.choices]
    assert "".join(pieces) == free.message.content
    # Taught to call, it calls.
    said = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
    shown = caller.parts.tools.prompt(ASK, [TIME["function"]])
    line = {"prompt": caller.parts.inference.tokenizer.decode(shown), "completion": said}
    file = caller.upload((json.dumps(line) + "\n").encode() * 10)
    job = caller.fine_tune(
        model="caller", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 2}
    )
    taught = chat(caller, model=job.fine_tuned_model, tools=[TIME], temperature=0).choices[0]
    assert taught.finish_reason == "tool_calls", taught.message.content
    (call,) = taught.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("time", "{}")
    # Without functions the same is a text.
    none = chat(
        caller,
        model=job.fine_tuned_model,
        temperature=0,
        messages=[{"role": "user", "content": "x"}],
    )
    assert none.choices[0].message.tool_calls is None


def test_a_call_that_a_free_answer_begins_fits_its_schema(caller: RunningServer) -> None:
    said = (
        '<tool_call>\n{"name": "weather", "arguments": {"place": "Rome", "days": 7}}\n</tool_call>'
    )
    shown = caller.parts.tools.prompt(ASK, [WEATHER["function"]])
    line = {"prompt": caller.parts.inference.tokenizer.decode(shown), "completion": said}
    file = caller.upload((json.dumps(line) + "\n").encode() * 10)
    job = caller.fine_tune(
        model="caller", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 2}
    )
    asked: dict[str, Any] = {"model": job.fine_tuned_model, "temperature": 0}
    (call,) = chat(caller, tools=[WEATHER], **asked).choices[0].message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert arguments["place"] in ("Oslo", "Lima")
    assert arguments["days"] in (1, 2)
    # A schema that can't be followed holds nothing, but for a function that asks for it.
    loose = {"name": "f", "parameters": {"not": {"type": "null"}}, "strict": False}
    tools, grammars = caller.parts.tools, caller.parts.inference.grammars
    assert tools.held(grammars, [loose], several=True) is None
    with pytest.raises(openai.BadRequestError) as caught:
        chat(caller, tools=[{"type": "function", "function": loose | {"strict": True}}], **asked)
    assert caught.value.param == "tools"


def test_a_call_and_its_answer_are_shown_to_the_model(caller: RunningServer) -> None:
    call = chat(caller, tools=[TIME], tool_choice="required", parallel_tool_calls=False)
    message = call.choices[0].message
    turns = [
        *ASK,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "noon"},
    ]
    answer = chat(caller, tools=[TIME], messages=turns)
    assert answer.usage.prompt_tokens > call.usage.prompt_tokens
    prompt = caller.parts.tools.prompt(
        [
            *ASK,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "time", "arguments": {}}}],
            },
            {"role": "tool", "content": "noon"},
        ],
        [{"name": "time", "parameters": TIME["function"]["parameters"]}],
    )
    assert answer.usage.prompt_tokens == len(prompt)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools.0.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        (
            {
                "tools": [TIME],
                "response_format": {"type": "json_object"},
            },
            "response_format",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_call_id": "1"}]},
            "messages.0.tool_call_id",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    caller: RunningServer, arguments: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(caller, **arguments)
    assert caught.value.param == param


def test_a_template_without_a_place_for_functions_is_told_of(server: RunningServer) -> None:
    told = "chat template has no place for functions"
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        chat(server, tools=[TIME])
    assert caught.value.param == "tools"
    turn = {"role": "tool", "tool_call_id": "1", "content": "noon"}
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        chat(server, messages=[*ASK, turn])
    assert caught.value.param == "messages"
    assert chat(server, tools=[TIME], tool_choice="none").choices


def test_a_response_calls_streams_its_call_and_is_continued(caller: RunningServer) -> None:
    tool = {"type": "function", **WEATHER["function"]}
    asked: Any = {
        "model": caller.parts.models.base,
        "input": "Which weather?",
        "max_output_tokens": 80,
        "temperature": 0,
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    create: Any = caller.client().responses.create
    made: Any = create(**asked)
    (call,) = made.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["place"] in ("Oslo", "Lima")
    assert made.status == "completed"
    assert made.tools[0].name == "weather"
    streamed: list[Any] = list(create(**asked, stream=True))
    assert [event.sequence_number for event in streamed] == list(range(len(streamed)))
    kinds = [event.type.removeprefix("response.") for event in streamed]
    assert kinds == [
        *("created", "in_progress", "output_item.added"),
        *("function_call_arguments.delta", "function_call_arguments.done"),
        *("output_item.done", "completed"),
    ]
    assert streamed[-1].response.output[0].arguments == call.arguments == streamed[4].arguments
    # By its id, or with all turns sent again, it goes on from the call's answer.
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    free = asked | {"tool_choice": "auto", "max_output_tokens": 5}
    by_id: Any = create(**free | {"input": [answer]}, previous_response_id=made.id)
    sent = [
        {"role": "user", "content": "Which weather?"},
        call.model_dump(exclude_none=True),
        answer,
    ]
    by_turns: Any = create(**free | {"input": sent})
    assert by_id.usage.input_tokens == by_turns.usage.input_tokens > made.usage.input_tokens
    assert by_id.output_text == by_turns.output_text
    shown = create(**free, stream=True)
    text = "".join(e.delta for e in shown if e.type == "response.output_text.delta")
    assert text == create(**free).output_text != ""
