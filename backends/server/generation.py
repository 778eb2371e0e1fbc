"""From a request to the tokens of its answers: what chats and completions share."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from openai.types import CompletionUsage
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails

from backends.errors import UnsupportedError
from backends.local.answers import Finish, GeneratedToken
from backends.local.constraints import Constraint
from backends.local.sampling import Sampling
from backends.server.chat_options import Offer
from backends.server.errors import ServiceError, invalid
from backends.server.requests import GenerationRequest
from backends.server.service import Service

Result = TypeVar("Result")

_CLIENT_LEFT = 499  # nginx's number for it; nobody reads the answer


@dataclass(frozen=True)
class Asked:
    """What the model is to continue, and how."""

    adapter: Path | None
    prompt: Sequence[int]
    sampling: Sampling


@dataclass(frozen=True)
class Sample:
    """One finished answer."""

    tokens: Sequence[GeneratedToken]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(token.text for token in self.tokens)

    @property
    def finish(self) -> Finish:
        """Why it ended."""
        finish = self.tokens[-1].finish
        assert finish is not None
        return finish

    @property
    def shown(self) -> list[GeneratedToken]:
        """Its tokens but for the one that says that it ends."""
        return [token for token in self.tokens if not token.is_end]


def sampling_of(
    asked: GenerationRequest,
    parts: Service,
    *,
    prompt: int,
    max_tokens: int | None,
    top: int,
    constraint: Constraint | None = None,
) -> Sampling:
    """The request's sampling for a prompt of so many tokens; without a limit, all the room is.

    Raises:
        ServiceError: prompt and answer do not fit the model's context, or a biased token is none.
    """
    return Sampling(
        max_tokens=_room(parts, prompt, max_tokens),
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        logit_bias=_biases(asked.logit_bias or {}, len(parts.inference.tokenizer)),
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        stop=asked.stop_strings,
        seed=secrets.randbits(63) if asked.seed is None else asked.seed,
        n=asked.n or 1,
        top=top,
        constraint=constraint,
    )


def held_to(schema: Mapping[str, Any] | None, parts: Service, param: str) -> Constraint | None:
    """What holds answers to JSON by a schema. Raises ServiceError where it can't be followed."""
    try:
        return None if schema is None else parts.inference.grammars.json(schema)
    except UnsupportedError as error:
        raise invalid(f"Invalid schema for '{param}': {error}", param) from error


def held_to_calls(offer: Offer, parts: Service) -> Constraint | None:
    """What holds calls to the functions that are offered. Raises ServiceError where it can't be done."""
    grammars, several = parts.inference.grammars, offer.several_calls
    try:
        if offer.required:
            return parts.tools.forced(grammars, offer.required, several=several)
        return parts.tools.held(grammars, offer.offered, several=several)
    except UnsupportedError as error:
        param = "tool_choice" if offer.required else "tools"
        raise invalid(f"Invalid '{param}': {error}", param) from error


def check_length(parts: Service, length: int) -> None:
    """Raises ServiceError where so many tokens do not fit the model's context."""
    limit = parts.inference.encoder.context_length
    if limit is not None and length > limit:
        message = (
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{length} tokens (answer included)."
        )
        raise invalid(message, "messages", "context_length_exceeded")


def check_tokens(tokens: Sequence[int], vocabulary: int, param: str) -> None:
    """Raises ServiceError where one of them is not in the vocabulary."""
    if any(not 0 <= token < vocabulary for token in tokens):
        raise invalid(f"Token ids must be from 0 to {vocabulary - 1}.", param)


async def generate(parts: Service, asked: Asked) -> AsyncGenerator[GeneratedToken, None]:
    """The tokens of all samples as they come; closing it frees what they take."""
    parts.metrics.prompted.inc(len(asked.prompt))
    tokens = parts.inference.generate(asked.adapter, asked.prompt, asked.sampling)
    async with aclosing(tokens):
        async for token in tokens:
            parts.metrics.generated.inc()
            yield token


async def samples(parts: Service, asked: Asked) -> list[Sample]:
    """All samples, once they are finished."""
    found: list[list[GeneratedToken]] = [[] for _ in range(asked.sampling.n)]
    async with aclosing(generate(parts, asked)) as tokens:
        async for token in tokens:
            found[token.sample].append(token)
    return [Sample(tokens) for tokens in found]


async def together(works: Iterable[Awaitable[Result]]) -> list[Result]:
    """What all of them give; if one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """What `work` gives, which is cancelled if the client leaves before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ServiceError(_CLIENT_LEFT, "The client left.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def usage(prompt: int, completion: int) -> CompletionUsage:
    """How many tokens went in and came out."""
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=0, audio_tokens=0),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=0,
            audio_tokens=0,
            accepted_prediction_tokens=0,
            rejected_prediction_tokens=0,
        ),
    )


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _room(parts: Service, prompt: int, max_tokens: int | None) -> int:
    limit = parts.inference.encoder.context_length
    check_length(parts, prompt + (max_tokens or 1))
    if max_tokens is not None:
        return max_tokens
    if limit is None:
        raise invalid("The model's context has no limit: give 'max_tokens'.", "max_tokens")
    return limit - prompt


def _biases(given: Mapping[str, float], vocabulary: int) -> dict[int, float]:
    biases = {}
    for token, bias in given.items():
        if not token.isdecimal() or len(token) > 9 or int(token) >= vocabulary:
            raise invalid(f"Invalid key in 'logit_bias': {token!r} is no token id.", "logit_bias")
        biases[int(token)] = bias
    return biases
