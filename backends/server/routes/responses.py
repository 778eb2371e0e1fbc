"""/v1/responses: a text, or calls of functions, for an input, and what continues it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from openai.types import responses as sdk
from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from backends.errors import UnsupportedError
from backends.local.answers import GeneratedToken
from backends.local.tools import Call, turn
from backends.server.conversations import Conversation
from backends.server.errors import ServiceError, invalid
from backends.server.generation import (
    Asked,
    Sample,
    generate,
    held_to,
    held_to_calls,
    samples,
    sampling_of,
    while_connected,
)
from backends.server.identifiers import new_id, now
from backends.server.lists import generated
from backends.server.response_requests import (
    LOGPROBS,
    FunctionTool,
    ResponseRequest,
    as_messages,
    merged,
)
from backends.server.service import Parts, Service
from backends.server.streaming import streamed

router = APIRouter(prefix="/v1/responses")


@dataclass(frozen=True)
class _Work:
    """A response that is being made; `turns` are those that it answers."""

    request: ResponseRequest
    turns: Sequence[dict[str, Any]]
    asked: Asked
    id: str
    item: str
    created: int
    model: str


@router.post("", response_model=None)
async def create(request: ResponseRequest, http: Request, parts: Parts) -> Response:
    """The assistant's answer to an input."""
    before = _before(request, parts)
    work = await run_in_threadpool(_prepare, request, before, parts)
    if request.stream:
        return await streamed(http, _events(work, parts), named=True)
    (sample,) = await while_connected(http, samples(parts, work.asked))
    return JSONResponse(generated(_finished(work, sample, parts)))


@router.get("/{response_id}")
async def retrieve(response_id: str, parts: Parts) -> JSONResponse:
    """A response that is remembered."""
    found = parts.conversations.get(response_id)
    if found is None:
        raise _unknown(response_id)
    return JSONResponse(generated(found.response))


@router.delete("/{response_id}")
async def delete(response_id: str, parts: Parts) -> dict[str, Any]:
    """Forgets a response."""
    if parts.conversations.remove(response_id) is None:
        raise _unknown(response_id)
    return {"id": response_id, "object": "response", "deleted": True}


def _unknown(response_id: str) -> ServiceError:
    return ServiceError(404, f"Response with id '{response_id}' not found.", param="response_id")


def _before(request: ResponseRequest, parts: Service) -> Sequence[dict[str, Any]]:
    """The turns of the response that this one continues."""
    previous = request.previous_response_id
    if previous is None:
        return ()
    found = parts.conversations.get(previous)
    if found is None:
        message = f"Previous response with id '{previous}' not found."
        raise invalid(message, "previous_response_id", "previous_response_not_found")
    return found.turns


def _prepare(request: ResponseRequest, before: Sequence[dict[str, Any]], parts: Service) -> _Work:
    model = parts.models.canonical(request.model)
    turns = merged([*before, *request.turns])
    functions = request.offer.offered
    system = [turn("system", request.instructions)] if request.instructions else []
    prompt = _prompt([*system, *turns], functions, parts)
    sampling = sampling_of(
        request.generation,
        parts,
        prompt=len(prompt),
        max_tokens=request.max_output_tokens,
        top=request.top_logprobs or 0,
        constraint=held_to_calls(request.offer, parts)
        if functions
        else held_to(request.schema_of_answers, parts, "text.format"),
    )
    asked = Asked(parts.models.adapter_path(model), prompt, sampling)
    return _Work(request, turns, asked, new_id("resp_"), new_id("msg_"), now(), model)


def _prompt(
    turns: Sequence[dict[str, Any]], functions: list[dict[str, Any]], parts: Service
) -> list[int]:
    messages = as_messages(turns)
    if messages is not None and not functions:
        return parts.inference.encoder.chat(messages)
    try:
        return parts.tools.prompt(turns, functions)
    except UnsupportedError as error:
        raise invalid(str(error), "tools" if functions else "input") from error


def _output(
    work: _Work, sample: Sample, parts: Service
) -> tuple[list[sdk.ResponseOutputItem], dict[str, Any]]:
    """What a whole answer consists of, and its turn."""
    status = "incomplete" if sample.finish == "length" else "completed"
    offered = work.request.offer.offered
    text, calls = sample.text, list[Call]()
    if offered:
        said, calls = parts.tools.read([token.token for token in sample.shown], offered)
        text = said if calls else text
        calls = calls if work.request.offer.several_calls else calls[:1]
    part = _part(work, sample, parts)
    part.text = text
    items: list[sdk.ResponseOutputItem] = []
    if text or not calls:
        items.append(_item(work, status, [part]))
    items += [
        sdk.ResponseFunctionToolCall(
            id=new_id("fc_"),
            call_id=new_id("call_"),
            type="function_call",
            name=call.name,
            arguments=call.arguments,
            status="completed",
        )
        for call in calls
    ]
    return items, turn("assistant", text, calls)


def _finished(work: _Work, sample: Sample, parts: Service) -> sdk.Response:
    """The whole response, which is remembered unless it is not to be."""
    is_cut = sample.finish == "length"
    response = _response(work, "incomplete" if is_cut else "completed")
    response.output, said = _output(work, sample, parts)
    if is_cut:
        response.incomplete_details = sdk.response.IncompleteDetails(reason="max_output_tokens")
    prompt, answer = len(work.asked.prompt), len(sample.tokens)
    response.usage = sdk.ResponseUsage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
        output_tokens=answer,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=prompt + answer,
    )
    if work.request.store is not False:
        parts.conversations.keep(Conversation(response, (*work.turns, said)))
    return response


def _response(work: _Work, status: sdk.ResponseStatus) -> sdk.Response:
    """The response without its answer."""
    asked = work.request
    text = asked.text.model_dump(by_alias=True, exclude_none=True) if asked.text else {}
    return sdk.Response.model_validate(
        {
            "id": work.id,
            "object": "response",
            "created_at": work.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": work.model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "temperature": work.asked.sampling.temperature,
            "text": {"format": {"type": "text"}} | text,
            "tool_choice": _shown(asked.tool_choice) or "auto",
            "tools": [_shown_tool(tool) for tool in asked.tools or ()],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": work.asked.sampling.top_p,
            "truncation": "disabled",
        }
        | ({} if asked.user is None else {"user": asked.user})
    )


def _shown(choice: str | BaseModel | None) -> Any:  # noqa: ANN401 - as it was asked for
    return choice.model_dump() if isinstance(choice, BaseModel) else choice


def _shown_tool(tool: FunctionTool) -> dict[str, Any]:
    said = tool.model_dump(exclude_none=True)
    return {"parameters": {}, "strict": True} | said


def _item(
    work: _Work, status: str, content: list[sdk.ResponseOutputText]
) -> sdk.ResponseOutputMessage:
    return sdk.ResponseOutputMessage.model_validate(
        {
            "id": work.item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [part.model_dump() for part in content],
        }
    )


def _part(work: _Work, sample: Sample | None, parts: Service) -> sdk.ResponseOutputText:
    shown = sample.shown if sample else []
    return sdk.ResponseOutputText.model_validate(
        {
            "type": "output_text",
            "text": sample.text if sample else "",
            "annotations": [],
            "logprobs": [logprob.model_dump() for logprob in _logprobs(work, shown, parts)],
        }
    )


def _logprobs(
    work: _Work, shown: list[GeneratedToken], parts: Service
) -> list[ChatCompletionTokenLogprob]:
    if LOGPROBS not in (work.request.include or ()):
        return []
    return [parts.token_texts.chat(token.token, token.score) for token in shown]


def _of_events(logprobs: list[ChatCompletionTokenLogprob]) -> list[dict[str, Any]]:
    """Those of a stream's events, which have no bytes."""
    without = {"bytes": True, "top_logprobs": {"__all__": {"bytes"}}}
    return [logprob.model_dump(exclude=without) for logprob in logprobs]


class _Events:
    """The events of one response, numbered."""

    def __init__(self) -> None:
        self._number = -1

    def event(self, kind: type[BaseModel], **fields: Any) -> BaseModel:  # noqa: ANN401 - of any event
        """One more of them."""
        self._number += 1
        name = kind.model_fields["type"].annotation.__args__[0]  # pyright: ignore
        return kind.model_construct(type=name, sequence_number=self._number, **fields)


async def _events(work: _Work, parts: Service) -> AsyncGenerator[BaseModel, None]:
    """The response as it comes about: a text token by token, calls once they are whole."""
    events = _Events()
    event = events.event
    place: dict[str, Any] = {"output_index": 0}
    inner = place | {"content_index": 0, "item_id": work.item}
    may_call = bool(work.request.offer.offered)
    so_far: list[GeneratedToken] = []
    async with aclosing(generate(parts, work.asked)) as tokens:
        async for token in tokens:
            if not so_far:  # not before: until now the request could fail
                begun = _response(work, "in_progress")
                yield event(sdk.ResponseCreatedEvent, response=begun)
                yield event(sdk.ResponseInProgressEvent, response=begun)
                if not may_call:
                    for one in _opened(work, events, parts):
                        yield one
            so_far.append(token)
            shown = [] if token.is_end else [token]
            logprobs = _of_events(_logprobs(work, shown, parts))
            if not may_call and (token.text or logprobs):
                yield event(
                    sdk.ResponseTextDeltaEvent, delta=token.text, logprobs=logprobs, **inner
                )
    sample = Sample(so_far)
    whole = _finished(work, sample, parts)
    for index, item in enumerate(whole.output):
        if isinstance(item, sdk.ResponseFunctionToolCall):
            for one in _call_events(item, index, events):
                yield one
            continue
        assert isinstance(item, sdk.ResponseOutputMessage)
        part = item.content[0]
        assert isinstance(part, sdk.ResponseOutputText)
        logprobs = _of_events(_logprobs(work, sample.shown, parts))
        if may_call:
            for one in _opened(work, events, parts):
                yield one
            yield event(sdk.ResponseTextDeltaEvent, delta=part.text, logprobs=logprobs, **inner)
        yield event(sdk.ResponseTextDoneEvent, text=part.text, logprobs=logprobs, **inner)
        yield event(sdk.ResponseContentPartDoneEvent, part=part, **inner)
        yield event(sdk.ResponseOutputItemDoneEvent, item=item, **place)
    last = sdk.ResponseIncompleteEvent if whole.incomplete_details else sdk.ResponseCompletedEvent
    yield event(last, response=whole)


def _opened(work: _Work, events: _Events, parts: Service) -> list[BaseModel]:
    """That a text begins, which is always the first item."""
    inner = {"output_index": 0, "content_index": 0, "item_id": work.item}
    item = _item(work, "in_progress", [])
    return [
        events.event(sdk.ResponseOutputItemAddedEvent, item=item, output_index=0),
        events.event(sdk.ResponseContentPartAddedEvent, part=_part(work, None, parts), **inner),
    ]


def _call_events(
    call: sdk.ResponseFunctionToolCall, index: int, events: _Events
) -> list[BaseModel]:
    begun = call.model_copy(update={"arguments": "", "status": "in_progress"})
    inner = {"output_index": index, "item_id": call.id}
    said = call.arguments
    done = sdk.ResponseFunctionCallArgumentsDoneEvent
    return [
        events.event(sdk.ResponseOutputItemAddedEvent, item=begun, output_index=index),
        events.event(sdk.ResponseFunctionCallArgumentsDeltaEvent, delta=said, **inner),
        events.event(done, arguments=said, name=call.name, **inner),
        events.event(sdk.ResponseOutputItemDoneEvent, item=call, output_index=index),
    ]
