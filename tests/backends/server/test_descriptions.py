"""Every answer of the server against two descriptions of the wire: the SDK's types, and OpenAI's own.

OpenAI's description (`openapi.json` of https://github.com/openai/openai-openapi) is too large to keep
here: with `--peers` and OPENAPI_DESCRIPTION, a path to it, the answers are validated by it. Last run with
its version 2.3.0, commit f85dbe2, SHA-256
bbfd19abcde0e7412da99378deb2a959ccdd3a812f97c9e35901921e8e973f9a.
"""

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

import openai
import pytest
from openai.types import Batch, Completion, FileDeleted, FileObject, Model, ModelDeleted
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backends.local.settings import LocalSettings
from benchmarks.peer_environment import environment
from tests.server import RunningServer, StartServer, training_file, until

PROGRAM = Path(__file__).parents[2] / "clients" / "programs" / "openapi.py"
JOBS = "/v1/fine_tuning/jobs"

TURNS: Any = [{"role": "user", "content": "Say something."}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"name": {"enum": ["red", "green"]}},
    "required": ["name"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "colour", "schema": SCHEMA}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "paint", "description": "Paints", "parameters": SCHEMA, "strict": True},
}
CALLED: Any = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}


@dataclass
class Answer:
    """What the server sent, and to what; `content` is JSON, or a stream's events."""

    method: str
    path: str
    status: int = 0
    kind: str = ""
    body: str = ""
    content: list[Any] = field(default_factory=list[Any])


class Recorder:
    """Middleware that keeps what is answered."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            answer = Answer(scope["method"], scope["path"])

            async def keep(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = {k.decode(): v.decode() for k, v in message["headers"]}
                    answer.status = message["status"]
                    answer.kind = headers["content-type"].split(";")[0]
                else:
                    answer.body += message.get("body", b"").decode()
                await send(message)

            await app(scope, receive, keep)
            self.answers.append(answer)

        return wrapped


def read(answer: Answer) -> Answer:
    """The answer with its content."""
    if answer.kind == "application/json":
        answer.content = [json.loads(answer.body)]
    elif answer.kind == "text/event-stream":
        lines = [line[6:] for line in answer.body.splitlines() if line.startswith("data: ")]
        answer.content = [json.loads(line) for line in lines if line != "[DONE]"]
    return answer


@pytest.fixture
def answers(
    start_server: StartServer, small_training: LocalSettings, model_with_tools: Path
) -> list[Answer]:
    """What is answered on every route, in its variants."""
    local = small_training.model_copy(update={"model": str(model_with_tools)})
    server = start_server(local=local, aliases={"gpt-4.1": "self"})
    recorder = Recorder()
    server.wrap(recorder)
    client = server.client(strict=False)
    tuned = trained(server, client)
    chatted(client, tuned)
    completed(client, tuned)
    responded(client, tuned)
    batched(server, client)
    mistaken(client)
    client.models.delete(tuned)
    kept = [read(answer) for answer in recorder.answers]
    of_app = [route for route in server._app.routes if isinstance(route, Route)]
    offered = {
        (method, route.path)
        for route in of_app
        for method in (route.methods or set()) - {"HEAD"}
        if route.path.startswith("/v1/")
    }
    reached = {
        (a.method, route.path)
        for a in kept
        for route in of_app
        if a.status == 200 and route.path_regex.match(a.path) and a.method in (route.methods or ())
    }
    assert offered <= reached, offered - reached
    return kept


def trained(server: RunningServer, client: openai.OpenAI) -> str:
    """The model that a job of all options makes."""
    lasting = client.files.create(
        file=("few.jsonl", training_file(10)),
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    job = client.fine_tuning.jobs.create(
        model="gpt-4.1",
        training_file=server.upload().id,
        validation_file=lasting.id,
        seed=1,
        suffix="s",
        metadata={"run": "1"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}},
        },
    )
    job = server.finished(job.id)
    assert job.status == "succeeded", job.error
    list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    list(client.fine_tuning.jobs.checkpoints.list(job.id))
    client.files.content(job.result_files[0])
    client.files.retrieve(job.result_files[0])
    bad = server.finished(
        client.fine_tuning.jobs.create(model="gpt-4.1", training_file=server.upload(1).id).id
    )
    assert bad.status == "failed"
    long = client.fine_tuning.jobs.create(
        model="gpt-4.1",
        training_file=server.upload().id,
        hyperparameters={"n_epochs": 50, "batch_size": 1},
    )
    client.fine_tuning.jobs.cancel(long.id)
    list(client.fine_tuning.jobs.list(limit=1))
    list(client.files.list(limit=2))
    client.files.delete(lasting.id)
    list(client.models.list())
    client.models.retrieve("gpt-4.1")
    assert job.fine_tuned_model
    client.models.retrieve(job.fine_tuned_model)
    return job.fine_tuned_model


def chatted(client: openai.OpenAI, model: str) -> None:
    said: Any = {"messages": TURNS, "max_tokens": 40, "model": model}
    asked: list[Any] = [{}, {"logprobs": True, "top_logprobs": 2, "n": 2}]
    for options in [*asked, {"response_format": FORMAT}, CALLED, {"tools": [TOOL]}]:
        client.chat.completions.create(**said | options)
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        list(client.chat.completions.create(**said | options | streamed))


def completed(client: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "prompt": ["One, two,", "Three"], "max_tokens": 3}
    for options in ({}, {"logprobs": 2}, {"logprobs": 2, "echo": True, "max_tokens": 0}):
        client.completions.create(**asked | options)
    list(client.completions.create(**asked, logprobs=1, stream=True))


def responded(client: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "input": "Say something.", "max_output_tokens": 40}
    logprobs: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    text: Any = {"format": {"type": "json_schema", "name": "colour", "schema": SCHEMA}}
    made = client.responses.create(**asked, instructions="Be kind.", metadata={"run": "1"})
    client.responses.retrieve(made.id)
    called = CALLED | {"tools": [{"type": "function", **TOOL["function"]}]}
    for options in ({"previous_response_id": made.id}, logprobs, {"text": text}, called):
        client.responses.create(**asked, **options)
        list(client.responses.create(**asked, **options, stream=True))
    client.responses.delete(made.id)


def batched(server: RunningServer, client: openai.OpenAI) -> None:
    asked = {"model": "gpt-4.1", "messages": TURNS, "max_tokens": 1}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": asked}
    wrong = line | {"custom_id": "b", "body": asked | {"temperature": 9}}
    many = [line | {"custom_id": str(n), "body": asked | {"max_tokens": 99}} for n in range(99)]
    made: list[Batch] = []
    for lines in ([line, wrong], [line, line], many):
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = client.files.create(file=("batch.jsonl", content), purpose="batch")
        made.append(
            client.batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"run": "1"},
            )
        )
    client.batches.cancel(made[-1].id)
    over = ("completed", "failed", "cancelled")
    for batch in made:
        until(lambda of=batch: client.batches.retrieve(of.id).status in over)
    list(client.batches.list(limit=1))


def mistaken(client: openai.OpenAI) -> None:
    asked: Any = {"model": "gpt-4.1", "messages": TURNS}
    for wrong in ({"model": "gpt-9"}, {"temperature": 9}, {"audio": {"voice": "x"}}):
        with pytest.raises(openai.APIStatusError):
            client.chat.completions.create(**asked | wrong)
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-none")


class Failure(BaseModel):
    error: ErrorObject


Item = TypeVar("Item")


class Listed(BaseModel, Generic[Item]):
    """A page; models come without the marks of one."""

    object: Literal["list"]
    data: list[Item]
    has_more: bool | None = None
    first_id: str | None = None
    last_id: str | None = None


class ResponseDeleted(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


EVENTS: dict[str, Any] = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in get_args(get_args(ResponseStreamEvent)[0])
}
TYPES: dict[str, Any] = {
    rf"POST {JOBS}(/[^/]+/cancel)?": FineTuningJob,
    rf"GET {JOBS}/[^/]+": FineTuningJob,
    rf"GET {JOBS}": Listed[FineTuningJob],
    rf"GET {JOBS}/[^/]+/events": Listed[FineTuningJobEvent],
    rf"GET {JOBS}/[^/]+/checkpoints": Listed[FineTuningJobCheckpoint],
    r"POST /v1/files": FileObject,
    r"GET /v1/files/[^/]+": FileObject,
    r"GET /v1/files": Listed[FileObject],
    r"DELETE /v1/files/[^/]+": FileDeleted,
    r"GET /v1/models/.+": Model,
    r"GET /v1/models": Listed[Model],
    r"DELETE /v1/models/.+": ModelDeleted,
    r"POST /v1/chat/completions": ChatCompletion,
    r"POST /v1/chat/completions stream": ChatCompletionChunk,
    r"POST /v1/completions( stream)?": Completion,
    r"(POST|GET) /v1/responses(/[^/]+)?": Response,
    r"POST /v1/responses stream": EVENTS,
    r"DELETE /v1/responses/[^/]+": ResponseDeleted,
    r"POST /v1/batches(/[^/]+/cancel)?": Batch,
    r"GET /v1/batches/[^/]+": Batch,
    r"GET /v1/batches": Listed[Batch],
}

# What the wire itself demands against its own description.
AGAINST = {
    ("POST /v1/completions", "token_logprobs.0"),  # no log-probability of an echo's first token
    ("POST /v1/completions", "top_logprobs.0"),
    ("POST /v1/completions stream", "finish_reason"),  # null until the last piece
    ("POST /v1/responses stream", "name"),  # OpenAI's description has it, the SDK's types don't
}


def route_of(answer: Answer) -> str:
    return f"{answer.method} {answer.path}" + (" stream" * (answer.kind == "text/event-stream"))


def test_every_answer_is_what_the_sdk_declares(answers: list[Answer]) -> None:
    problems: set[str] = set()
    for answer in answers:
        if answer.kind == "application/octet-stream":
            continue  # a file's content
        route = route_of(answer)
        (kind,) = [k for pattern, k in TYPES.items() if re.fullmatch(pattern, route)]
        assert answer.content, route
        for content in answer.content:
            # Of all events' types, only the one of its name would have something to say.
            type_of_event = EVENTS[content["type"]] if kind is EVENTS else kind
            adapter = TypeAdapter(type_of_event if answer.status == 200 else Failure)
            try:
                # Not strict about numbers alone: JSON has one kind of them.
                adapter.validate_json(json.dumps(content), extra="forbid", strict=True)
            except ValidationError as error:
                for one in error.errors():
                    place = ".".join(str(part) for part in one["loc"])
                    if not any(route == r and place.endswith(end) for r, end in AGAINST):
                        problems.add(f"{route}: {re.sub(r'[0-9]+', '*', place)}: {one['msg']}")
    assert not problems, "\n".join(sorted(problems))


@pytest.mark.peers
def test_every_answer_is_what_openai_describes(answers: list[Answer], tmp_path: Path) -> None:
    description = os.environ.get("OPENAPI_DESCRIPTION")
    if description is None:
        pytest.skip("OPENAPI_DESCRIPTION names no file: openapi.json of openai/openai-openapi")
    recorded = tmp_path / "answers.json"
    recorded.write_text(json.dumps([asdict(a) for a in answers]), encoding="utf-8")
    command = [*environment(["jsonschema==4.26.0"], alike=()), "python", str(PROGRAM)]
    done = subprocess.run(
        [*command, description, str(recorded)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["validated"] == sum(len(answer.content) for answer in answers)
    unknown = [
        problem
        for problem in report["problems"]
        if not any(
            problem["route"] == route and problem["place"].endswith(end) for route, end in AGAINST
        )
    ]
    assert not unknown, json.dumps(unknown, indent=1)
