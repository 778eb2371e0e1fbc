"""/v1/chat/completions"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
)
from openai.types.chat import chat_completion as whole
from openai.types.chat import chat_completion_chunk as part
from openai.types.chat.chat_completion_message_function_tool_call import Function as CalledFunction
from starlette.concurrency import run_in_threadpool

from backends.errors import UnsupportedError
from backends.local.answers import GeneratedToken
from backends.local.constraints import Constraint
from backends.local.tools import Call
from backends.server.chat_messages import as_messages
from backends.server.chat_options import NamedTool
from backends.server.errors import invalid
from backends.server.generation import (
    Asked,
    Sample,
    generate,
    held_to,
    held_to_calls,
    samples,
    sampling_of,
    usage,
    while_connected,
)
from backends.server.identifiers import new_id, now
from backends.server.lists import generated
from backends.server.requests import ChatRequest
from backends.server.service import Parts, Service
from backends.server.streaming import streamed

router = APIRouter(prefix="/v1/chat/completions")

Ending = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class _Chat:
    """A chat that is being answered."""

    request: ChatRequest
    asked: Asked
    id: str
    created: int
    model: str


@router.post("", response_model=None)
async def create(request: ChatRequest, http: Request, parts: Parts) -> Response:
    """The assistant's answers to a chat."""
    chat = await run_in_threadpool(_prepare, request, parts)
    if request.stream:
        return await streamed(http, _chunks(chat, parts))
    return JSONResponse(generated(await while_connected(http, _answer(chat, parts))))


def _prepare(request: ChatRequest, parts: Service) -> _Chat:
    model = parts.models.canonical(request.model)
    prompt = _prompt(request, parts)
    sampling = sampling_of(
        request,
        parts,
        prompt=len(prompt),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        top=request.top_logprobs or 0,
        constraint=_constraint(request, parts),
    )
    asked = Asked(parts.models.adapter_path(model), prompt, sampling)
    return _Chat(request, asked, new_id("chatcmpl-"), now(), model)


def _prompt(request: ChatRequest, parts: Service) -> list[int]:
    if not request.offered and not any(message.is_of_tools for message in request.messages):
        return parts.inference.encoder.chat(as_messages(request.messages))
    try:
        turns = [message.turn() for message in request.messages]
        return parts.tools.prompt(turns, request.offered)
    except UnsupportedError as error:
        raise invalid(str(error), "tools" if request.offered else "messages") from error


def _constraint(request: ChatRequest, parts: Service) -> Constraint | None:
    if request.offered:
        return held_to_calls(request, parts)
    schema = request.response_format.schema_of_answers if request.response_format else None
    return held_to(schema, parts, "response_format")


def _message(chat: _Chat, sample: Sample, parts: Service) -> tuple[ChatCompletionMessage, Ending]:
    """What the assistant says, with the calls in it, and why it ends."""
    text, calls = sample.text, list[Call]()
    if offered := chat.request.offered:
        said, calls = parts.tools.read([token.token for token in sample.shown], offered)
        text = said if calls else text
    message = ChatCompletionMessage(role="assistant", content=text, refusal=None, annotations=[])
    if not calls:
        return message, sample.finish
    if not chat.request.several_calls:
        calls = calls[:1]
    message.content = text or None
    message.tool_calls = [
        ChatCompletionMessageFunctionToolCall(
            id=new_id("call_"),
            type="function",
            function=CalledFunction(name=call.name, arguments=call.arguments),
        )
        for call in calls
    ]
    # The service ends the call of a function that the request names with "stop".
    named = isinstance(chat.request.tool_choice, NamedTool)
    return message, "stop" if named else "tool_calls"


async def _answer(chat: _Chat, parts: Service) -> ChatCompletion:
    finished = await samples(parts, chat.asked)
    said = [_message(chat, sample, parts) for sample in finished]
    return ChatCompletion(
        id=chat.id,
        object="chat.completion",
        created=chat.created,
        model=chat.model,
        service_tier="default",
        system_fingerprint=parts.fingerprint,
        choices=[
            whole.Choice(
                index=index,
                finish_reason=finish,
                message=message,
                logprobs=_logprobs(chat, sample, parts),
            )
            for index, (sample, (message, finish)) in enumerate(zip(finished, said, strict=True))
        ],
        usage=usage(len(chat.asked.prompt), sum(len(sample.tokens) for sample in finished)),
    )


def _logprobs(chat: _Chat, sample: Sample, parts: Service) -> whole.ChoiceLogprobs | None:
    if not chat.request.logprobs:
        return None
    texts = parts.token_texts
    content = [texts.chat(t.token, t.score) for t in sample.shown]
    return whole.ChoiceLogprobs(content=content, refusal=None)


async def _chunks(chat: _Chat, parts: Service) -> AsyncGenerator[ChatCompletionChunk, None]:
    count = 0
    so_far: list[list[GeneratedToken]] = [[] for _ in range(chat.asked.sampling.n)]
    async with aclosing(generate(parts, chat.asked)) as tokens:
        async for token in tokens:
            if count == 0:  # not before: until now the request could fail
                delta = part.ChoiceDelta(role="assistant", content="", refusal=None)
                for index in range(chat.asked.sampling.n):
                    first = part.Choice(index=index, delta=delta, finish_reason=None, logprobs=None)
                    yield _chunk(chat, parts, [first])
            count += 1
            choice = _choice(chat, parts, token)
            if chat.request.offered:  # whether it is a call shows at the end
                so_far[token.sample].append(token)
                choice.delta.content = ""
                if token.finish:
                    choice = _last_choice(chat, parts, choice, Sample(so_far[token.sample]))
            yield _chunk(chat, parts, [choice])
    if chat.request.with_usage:
        last = _chunk(chat, parts, [])
        last.usage = usage(len(chat.asked.prompt), count)
        yield last


def _last_choice(chat: _Chat, parts: Service, last: part.Choice, sample: Sample) -> part.Choice:
    """All that an answer says, in its last piece."""
    message, last.finish_reason = _message(chat, sample, parts)
    last.delta.content = message.content
    if message.tool_calls:
        last.delta.tool_calls = [
            part.ChoiceDeltaToolCall.model_validate({"index": index, **call.model_dump()})
            for index, call in enumerate(message.tool_calls)
        ]
    return last


def _choice(chat: _Chat, parts: Service, token: GeneratedToken) -> part.Choice:
    logprobs = None
    if chat.request.logprobs and not token.is_end:
        content = [parts.token_texts.chat(token.token, token.score)]
        logprobs = part.ChoiceLogprobs(content=content, refusal=None)
    return part.Choice(
        index=token.sample,
        delta=part.ChoiceDelta(content=token.text),
        finish_reason=token.finish,
        logprobs=logprobs,
    )


def _chunk(chat: _Chat, parts: Service, choices: list[part.Choice]) -> ChatCompletionChunk:
    chunk = ChatCompletionChunk(
        id=chat.id,
        object="chat.completion.chunk",
        created=chat.created,
        model=chat.model,
        service_tier="default",
        system_fingerprint=parts.fingerprint,
        choices=choices,
    )
    if chat.request.with_usage:
        chunk.usage = None  # set: the service sends a null where usage was asked for
    return chunk
