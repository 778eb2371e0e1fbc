"""/v1/chat/completions"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat import chat_completion as whole
from openai.types.chat import chat_completion_chunk as part
from starlette.concurrency import run_in_threadpool

from backends.errors import UnsupportedError
from backends.local.answers import GeneratedToken
from backends.local.constraints import Constraint
from backends.server.errors import invalid
from backends.server.generation import (
    Asked,
    Sample,
    generate,
    samples,
    sampling_of,
    usage,
    while_connected,
)
from backends.server.identifiers import new_id, now
from backends.server.lists import generated
from backends.server.requests import ChatRequest, as_messages
from backends.server.service import Parts, Service
from backends.server.streaming import streamed

router = APIRouter(prefix="/v1/chat/completions")


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
    prompt = parts.inference.encoder.chat(as_messages(request.messages))
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


def _constraint(request: ChatRequest, parts: Service) -> Constraint | None:
    schema = request.response_format.schema_of_answers if request.response_format else None
    if schema is None:
        return None
    try:
        return parts.inference.grammars.json(schema)
    except UnsupportedError as error:
        raise invalid(
            f"Invalid schema for 'response_format': {error}", "response_format"
        ) from error


async def _answer(chat: _Chat, parts: Service) -> ChatCompletion:
    finished = await samples(parts, chat.asked)
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
                finish_reason=sample.finish,
                message=ChatCompletionMessage(
                    role="assistant", content=sample.text, refusal=None, annotations=[]
                ),
                logprobs=_logprobs(chat, sample, parts),
            )
            for index, sample in enumerate(finished)
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
    async with aclosing(generate(parts, chat.asked)) as tokens:
        async for token in tokens:
            if count == 0:  # not before: until now the request could fail
                delta = part.ChoiceDelta(role="assistant", content="", refusal=None)
                for index in range(chat.asked.sampling.n):
                    first = part.Choice(index=index, delta=delta, finish_reason=None, logprobs=None)
                    yield _chunk(chat, parts, [first])
            count += 1
            yield _chunk(chat, parts, [_choice(chat, parts, token)])
    if chat.request.with_usage:
        last = _chunk(chat, parts, [])
        last.usage = usage(len(chat.asked.prompt), count)
        yield last


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
