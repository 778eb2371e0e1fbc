"""/v1/chat/completions"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat import chat_completion as whole
from openai.types.chat import chat_completion_chunk as part
from starlette.concurrency import run_in_threadpool

from backends.local.inference import GeneratedToken
from backends.server.generation import Asked, generate, sampling_of, samples, usage, while_connected
from backends.server.identifiers import new_id, now
from backends.server.lists import wire
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
        return await streamed(_chunks(chat, parts))
    answer = await while_connected(http, _answer(chat, parts))
    return JSONResponse(wire(answer))


def _prepare(request: ChatRequest, parts: Service) -> _Chat:
    prompt = parts.inference.encoder.chat(as_messages(request.messages))
    sampling = sampling_of(
        request,
        parts,
        prompt=len(prompt),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        top=request.top_logprobs or 0,
    )
    return _Chat(
        request=request,
        asked=Asked(parts.models.adapter_path(request.model), prompt, sampling),
        id=new_id("chatcmpl-"),
        created=now(),
        model=parts.models.canonical(request.model),
    )


async def _answer(chat: _Chat, parts: Service) -> ChatCompletion:
    finished = await samples(parts, chat.asked)
    choices = [
        whole.Choice(
            index=index,
            finish_reason=sample.finish,
            message=ChatCompletionMessage(role="assistant", content=sample.text),
            logprobs=whole.ChoiceLogprobs(
                content=[_logprob(token, parts) for token in sample.tokens if token.shown]
            )
            if chat.request.logprobs
            else None,
        )
        for index, sample in enumerate(finished)
    ]
    return ChatCompletion(
        id=chat.id,
        object="chat.completion",
        created=chat.created,
        model=chat.model,
        system_fingerprint=parts.fingerprint,
        choices=choices,
        usage=usage(len(chat.asked.prompt), sum(len(sample.tokens) for sample in finished)),
    )


async def _chunks(chat: _Chat, parts: Service) -> AsyncIterator[ChatCompletionChunk]:
    for index in range(chat.asked.sampling.n):
        delta = part.ChoiceDelta(role="assistant", content="")
        yield _chunk(chat, parts, [part.Choice(index=index, delta=delta)])
    count = 0
    async with aclosing(generate(parts, chat.asked)) as tokens:
        async for token in tokens:
            count += 1
            yield _chunk(chat, parts, [_choice(chat, parts, token)])
    if chat.request.with_usage:
        last = _chunk(chat, parts, [])
        yield last.model_copy(update={"usage": usage(len(chat.asked.prompt), count)})
