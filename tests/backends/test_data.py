import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from backends.data import (
    TRAINING_EXAMPLE,
    CandidateScore,
    GenerationQuery,
    LogProbability,
    Message,
    ScoringQuery,
    ScoringResult,
    TrainingExample,
    TunedModel,
)
from backends.jsonl import dumps, parse_line

_USER = {"role": "user", "content": "Hi"}
_ASSISTANT = {"role": "assistant", "content": "Hello"}


def example(value: object) -> TrainingExample:
    return TRAINING_EXAMPLE.validate_json(json.dumps(value))


def test_a_chat_in_the_hosted_format_is_a_training_example() -> None:
    found = example({"messages": [_USER, _ASSISTANT | {"weight": 0}, _USER, _ASSISTANT]})
    assert found.messages is not None
    assert [message.weight for message in found.messages] == [None, 0, None, None]


def test_a_prompt_with_its_completion_is_a_training_example() -> None:
    found = example({"prompt": "", "completion": " 4"})
    assert found == TrainingExample(prompt="", completion=" 4")


def test_a_prefill_begins_an_answer_not_a_text() -> None:
    chat = ScoringQuery(
        id="q", messages=(Message(role="user", content="Hi"),), prefill="A", candidates={"a": "b"}
    )
    assert json.loads(dumps(chat))["prefill"] == "A"
    with pytest.raises(ValidationError, match="'prefill' goes with 'messages'"):
        ScoringQuery(id="q", prompt="Hi", prefill="A", candidates={"a": "b"})


def test_a_chat_example_is_written_as_the_hosted_format_wants_it() -> None:
    chat = TrainingExample(
        messages=(Message(role="user", content="Hi"), Message(role="assistant", content="Hello"))
    )
    assert json.loads(dumps(chat)) == {"messages": [_USER, _ASSISTANT]}


@pytest.mark.parametrize(
    ("turn", "role"),
    [
        ({"role": "developer", "content": "Hi"}, "system"),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, "user"),
        (
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("H", "", "i")]},
            "user",
        ),
        ({"role": "user", "name": "Alice", "content": "Hi"}, "user"),
        (
            _USER
            | dict.fromkeys(("name", "refusal", "function_call", "tool_calls", "audio", "weight"))
            | {"annotations": []},
            "user",
        ),
    ],
    ids=["developer", "part", "parts", "name", "nulls"],
)
def test_a_turn_is_read_as_the_hosted_format_means_it(turn: dict[str, Any], role: str) -> None:
    read = example({"messages": [turn, _ASSISTANT]})
    assert read == example({"messages": [{"role": role, "content": "Hi"}, _ASSISTANT]})
    assert json.loads(dumps(read))["messages"][0] == {"role": role, "content": "Hi"}
    in_python = Message.model_validate(turn)
    assert read.messages is not None
    assert in_python == read.messages[0]


def test_an_assistants_turn_alone_is_a_training_example() -> None:
    assert example({"messages": [_ASSISTANT]}).messages == (Message.model_validate(_ASSISTANT),)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValidationError, match="Invalid JSON"):
        TRAINING_EXAMPLE.validate_json(r'{"prompt": "a\ud83d", "completion": "b"}')


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"messages": []}, "at least 1"),
        ({"messages": [_USER]}, "last message must be the assistant's"),
        ({"messages": [_ASSISTANT, _USER]}, "last message must be the assistant's"),
        ({"messages": [_USER, _ASSISTANT | {"weight": 0}]}, "nothing to learn"),
        ({"messages": [_USER, _ASSISTANT | {"weight": 2}]}, "weight"),
        ({"messages": [{"role": "tool", "content": ""}, _ASSISTANT]}, "role"),
        ({"messages": [{"role": "user", "content": 5}, _ASSISTANT]}, "content"),
        ({"messages": [{"role": "user"}, _ASSISTANT]}, "content"),
        ({"messages": [_USER | {"name": 5}, _ASSISTANT]}, "name"),
        ({"messages": [_USER | {"nickname": "x"}, _ASSISTANT]}, "nickname"),
        ({"messages": [_USER, _ASSISTANT | {"tool_calls": [{}]}]}, "tool_calls"),
        ({"messages": [_USER | {"content": []}, _ASSISTANT]}, "content"),
        (
            {"messages": [_USER | {"content": [{"type": "image_url"}]}, _ASSISTANT]},
            "content: a list has parts .*text",
        ),
        ({"messages": [_USER, _ASSISTANT], "prompt": "x"}, "prompt"),
        ({"messages": "Hi"}, "messages"),
        ({"prompt": "x", "completion": ""}, "completion"),
        ({"prompt": "x"}, "completion"),
        ({"completion": "x"}, "prompt"),
        ({"prompt": "x", "completion": 4}, "completion"),
        ({}, "prompt"),
        ([_USER, _ASSISTANT], "object"),
        ("messages", "object"),
        (None, "object"),
    ],
)
def test_what_is_no_training_example_is_refused(value: object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        example(value)


def scoring_query(**changes: object) -> ScoringQuery:
    base: dict[str, Any] = {"id": "q", "prompt": "2+2=", "candidates": {"right": " 4"}}
    return ScoringQuery.model_validate(base | changes)


def test_a_query_has_a_chat_or_a_text() -> None:
    chat = scoring_query(prompt=None, messages=(Message(role="user", content="2+2"),))
    assert chat.messages is not None
    assert scoring_query().prompt == "2+2="
    assert scoring_query(prompt="").prompt == ""  # an empty text is one


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt": None}, "either 'messages' or 'prompt'"),
        ({"messages": (Message(role="user", content="x"),)}, "either 'messages' or 'prompt'"),
        ({"prompt": None, "messages": ()}, "messages"),
        ({"id": ""}, "id"),
        ({"candidates": {}}, "candidates"),
        ({"candidates": {"right": 4}}, "candidates"),
        ({"candidate": {"right": "4"}}, "candidate"),
    ],
)
def test_what_is_no_scoring_query_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        scoring_query(**changes)


def test_generation_is_greedy_unless_told_otherwise() -> None:
    query = GenerationQuery(id="q", prompt="x", max_tokens=1)
    assert (query.temperature, query.n_samples) == (0.0, 1)
    assert GenerationQuery(id="q", prompt="x", max_tokens=1, temperature=1, n_samples=5)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"n_samples": 2}, "temperature 0 has a single answer"),
        ({"temperature": -0.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.0, "n_samples": 0}, "n_samples"),
    ],
)
def test_what_is_no_generation_query_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        GenerationQuery.model_validate({"id": "q", "prompt": "x", "max_tokens": 1} | changes)


def test_records_can_not_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        scoring_query().id = "other"


@pytest.mark.parametrize(
    ("low", "high"),
    [(-2.0, -1.0), (-1.0, -1.0), (-math.inf, -3.0), (-math.inf, -math.inf), (-1.0, 0.0)],
)
def test_log_probabilities_are_intervals(low: float, high: float) -> None:
    logp = LogProbability(low=low, high=high)
    assert (logp.low, logp.high) == (low, high)


def test_an_exact_log_probability_is_an_interval_without_width() -> None:
    assert LogProbability.exact(-2.5) == LogProbability(low=-2.5, high=-2.5)


def test_a_quantised_log_probability_may_exceed_zero_by_its_rounding() -> None:
    assert LogProbability.exact(1e-4).high == 1e-4


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-1.0, -2.0),
        (0.1, 0.2),
        (-1.0, 0.1),
        (-1.0, math.inf),
        (math.nan, math.nan),
        (math.nan, -1.0),
        (-1.0, math.nan),
    ],
)
def test_what_is_no_interval_of_log_probabilities_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValidationError, match="not an interval of log-probabilities"):
        LogProbability(low=low, high=high)


_LOGP = (
    st.tuples(*[st.floats(max_value=0, allow_nan=False)] * 2)
    .map(sorted)
    .map(lambda ends: LogProbability(low=ends[0], high=ends[1]))
)


@given(total=_LOGP, first_token=_LOGP, n_tokens=st.integers(1, 20), name=st.text())
def test_results_survive_the_file_to_the_last_bit(
    total: LogProbability, first_token: LogProbability, n_tokens: int, name: str
) -> None:
    score = CandidateScore(total=total, first_token=first_token, n_tokens=n_tokens)
    result = ScoringResult(id="q", candidates={name: score}, method="exact")
    line = dumps(result)
    assert "\n" not in line
    assert parse_line(line, TypeAdapter(ScoringResult), where="here") == result


def test_a_tuned_model_survives_json() -> None:
    tuned = TunedModel.model_validate(
        {
            "model": "m",
            "base_model": "b",
            "hyperparameters": {"learning_rate": 1e-4, "targets": ["q", "v"], "nothing": None},
            "n_examples": 3,
            "trained_tokens": 100,
            "seconds": 1.5,
            "cost_usd": None,
            "training_curve": ({"step": 1, "train_loss": 0.5},),
        }
    )
    assert tuned.training_curve[0].validation_loss is None
    assert TunedModel.model_validate_json(tuned.model_dump_json()) == tuned
