"""Whatever is sent to whichever endpoint, the server answers, and never with a failure of its own."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server import RunningServer

_TEXT = st.characters(exclude_categories=())  # JSON can write halves of surrogate pairs
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(_TEXT, max_size=20),
    st.sampled_from(["llama", "auto", "user", "assistant", "fine-tune", "24h", "file-1", "\x00"]),
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(_TEXT, max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
_CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=3),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": st.sampled_from("fg"), "arguments": st.just("{}") | st.text(max_size=3)}
            ),
        }
    ),
    max_size=2,
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "developer", "tool"]),
            "content": st.text(_TEXT, max_size=30) | _JSON,
        },
        optional={"tool_call_id": st.text(max_size=3), "tool_calls": _CALLS},
    ),
    max_size=4,
)
_SCHEMA = _JSON | st.dictionaries(
    st.sampled_from(["type", "properties", "items", "enum", "$ref", "pattern", "anyOf", "minimum"]),
    st.sampled_from(["object", "string", "integer"]) | _JSON,
    max_size=4,
)
_GENERATION: dict[str, st.SearchStrategy[Any]] = {
    "max_tokens": st.integers(0, 3) | _SCALARS,
    "temperature": st.floats(0, 2.1) | _SCALARS,
    "top_p": st.floats(0, 1) | _SCALARS,
    "n": st.integers(0, 3) | _SCALARS,
    "seed": st.integers(-(2**64), 2**64),
    "response_format": st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "json_object", "json_schema"])},
        optional={"json_schema": st.fixed_dictionaries({"name": st.just("s"), "schema": _SCHEMA})},
    ),
    "tools": st.lists(
        st.fixed_dictionaries(
            {
                "type": st.just("function"),
                "function": st.fixed_dictionaries(
                    {"name": st.sampled_from("fg")}, optional={"parameters": _SCHEMA}
                ),
            }
        ),
        max_size=2,
    ),
    "tool_choice": st.sampled_from(["none", "auto", "required"]) | _JSON,
    "stop": st.text(_TEXT, max_size=3) | st.lists(st.text(max_size=3), max_size=5),
    "logit_bias": st.dictionaries(
        st.integers(-5, 60_000).map(str) | st.text(max_size=4), st.integers(-101, 101), max_size=3
    ),
    "logprobs": st.booleans() | st.integers(-1, 21),
    "top_logprobs": st.integers(-1, 21),
    "echo": st.booleans(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}) | _JSON,
}


def body(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, a model that is mostly the right one, and now and then anything else."""
    model = st.sampled_from(["llama", "llama", "llama", "gpt-9", "../llama", "\ud83d", None, 3])
    some = st.fixed_dictionaries({"model": model}, optional=fields)
    return some | st.dictionaries(st.sampled_from(sorted(fields)), _JSON, max_size=4)


_POSTS: dict[str, st.SearchStrategy[Any]] = {
    "/v1/chat/completions": body(messages=_MESSAGES, **_GENERATION),
    "/v1/completions": body(
        prompt=st.text(_TEXT, max_size=30)
        | st.lists(st.text(max_size=10), max_size=3)
        | st.lists(st.integers(-1, 60_000), max_size=5)
        | st.lists(st.lists(st.integers(0, 49_000), max_size=4), max_size=3)
        | _JSON,
        **_GENERATION,
    ),
    "/v1/responses": body(
        input=st.text(_TEXT, max_size=30) | _MESSAGES | _JSON,
        instructions=st.text(_TEXT, max_size=5) | _JSON,
        max_output_tokens=st.integers(0, 3),
        temperature=st.floats(0, 2.1) | _SCALARS,
        stream=st.booleans(),
        store=st.booleans(),
        previous_response_id=st.text(max_size=5) | st.none(),
        text=st.fixed_dictionaries({"format": _JSON | st.fixed_dictionaries({"type": _SCALARS})}),
    ),
    "/v1/fine_tuning/jobs": body(
        training_file=st.text(max_size=10),
        suffix=st.text(max_size=70),
        seed=st.integers(),
        metadata=st.dictionaries(st.text(max_size=70), st.text(max_size=10), max_size=18) | _JSON,
        hyperparameters=_JSON,
        method=_JSON,
        integrations=_JSON,
    ),
    "/v1/batches": body(
        input_file_id=_SCALARS,
        endpoint=st.sampled_from(["/v1/completions", "/v1/files"]),
        completion_window=_SCALARS,
        metadata=_JSON,
    ),
    "/tokenize": body(
        prompt=st.text(_TEXT, max_size=30),
        messages=_MESSAGES,
        add_special_tokens=st.booleans(),
        add_generation_prompt=st.booleans(),
        continue_final_message=st.booleans(),
    ),
    "/detokenize": body(tokens=st.lists(st.integers(-1, 2**40), max_size=5)),
    "/v1/files": _JSON,
}
_GETS = [
    "/v1/files",
    "/v1/files/{}",
    "/v1/files/{}/content",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/{}",
    "/v1/fine_tuning/jobs/{}/events",
    "/v1/fine_tuning/jobs/{}/checkpoints",
    "/v1/batches",
    "/v1/batches/{}",
    "/v1/responses/{}",
    "/v1/models",
    "/v1/models/{}",
    "/health",
    "/version",
    "/metrics",
]
_QUERY = st.dictionaries(
    st.sampled_from(["after", "limit", "order", "purpose", "metadata", "metadata[a]", "metadata["]),
    st.text(max_size=10) | st.integers().map(str),
    max_size=3,
)

_fixed_server = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert '"server_error"' not in answer.text  # of a stream that fails midway


@pytest.mark.parametrize("path", _POSTS)
@_fixed_server
@given(data=st.data())
def test_no_body_is_a_failure(server: RunningServer, path: str, data: st.DataObject) -> None:
    sent = json.dumps(data.draw(_POSTS[path]))
    with server.raw() as http:
        check(http.post(path, content=sent, headers={"content-type": "application/json"}))


@_fixed_server
@given(path=st.sampled_from(sorted(_POSTS)), sent=st.binary(max_size=50), kind=st.text(max_size=5))
def test_no_bytes_are_a_failure(server: RunningServer, path: str, sent: bytes, kind: str) -> None:
    with server.raw() as http:
        check(http.post(path, content=sent, headers={"content-type": kind.encode().hex()}))


@_fixed_server
@given(
    method=st.sampled_from(["GET", "GET", "DELETE", "POST", "PUT"]),
    path=st.sampled_from(_GETS),
    identifier=st.text(max_size=12),
    query=_QUERY,
)
def test_no_path_or_query_is_a_failure(
    server: RunningServer, method: str, path: str, identifier: str, query: dict[str, str]
) -> None:
    with server.raw() as http:
        check(http.request(method, path.format(quote(identifier, safe="")), params=query))


@_fixed_server
@given(
    name=st.text(min_size=1, max_size=20),
    content=st.binary(max_size=200),
    purpose=st.sampled_from(["fine-tune", "batch", "vision", ""]),
)
def test_no_upload_is_a_failure(
    server: RunningServer, name: str, content: bytes, purpose: str
) -> None:
    with server.raw() as http:
        check(http.post("/v1/files", files={"file": (name, content)}, data={"purpose": purpose}))
