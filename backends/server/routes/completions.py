"""/v1/completions"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from openai.types import Completion, CompletionChoice, CompletionUsage
from starlette.concurrency import run_in_threadpool

from backends.local.answers import Finish
from backends.local.sampling import Sampling
from backends.local.sequences import TokenScore
from backends.server.generation import (
    Asked,
    check_length,
    check_tokens,
    generate,
    samples,
    sampling_of,
    together,
    usage,
    while_connected,
)
from backends.server.identifiers import new_id, now
from backends.server.lists import generated
from backends.server.requests import CompletionRequest
from backends.server.service import Parts, Service
from backends.server.streaming import streamed
from backends.server.token_texts import CompletionLogprobs

router = APIRouter(prefix="/v1/completions")

_MAX_TOKENS = 16
"""The service's default."""

Scored = Sequence[tuple[int, TokenScore | None]]


@dataclass(frozen=True)
class _Prompt:
    """One prompt of a request; `sampling` is None where nothing is to be generated."""

    index: int
    text: str
    tokens: list[int]
    sampling: Sampling | None


@dataclass(frozen=True)
class _Work:
    """A request with its prompts as tokens."""

    request: CompletionRequest
    prompts: list[_Prompt]
    adapter: Path | None
    id: str
    created: int
    model: str

    def asked(self, prompt: _Prompt, sampling: Sampling) -> Asked:
        return Asked(self.adapter, prompt.tokens, sampling)

    def place(self, prompt: _Prompt, sample: int) -> int:
        """A choice's index among those of all prompts."""
        return prompt.index * (self.request.n or 1) + sample


@router.post("", response_model=None)
async def create(request: CompletionRequest, http: Request, parts: Parts) -> Response:
    """What continues each prompt; with `echo`, after the prompt itself."""
    work = await run_in_threadpool(_prepare, request, parts)
    if request.stream:
        return await streamed(http, _chunks(work, parts))
    return JSONResponse(generated(await while_connected(http, _answer(work, parts))))


def _prepare(request: CompletionRequest, parts: Service) -> _Work:
    model = parts.models.canonical(request.model)
    prompts = [_prompt(request, i, given, parts) for i, given in enumerate(request.prompts)]
    adapter = parts.models.adapter_path(model)
    return _Work(request, prompts, adapter, new_id("cmpl-"), now(), model)


def _prompt(
    request: CompletionRequest, index: int, given: str | list[int], parts: Service
) -> _Prompt:
    tokenizer, encoder = parts.inference.tokenizer, parts.inference.encoder
    if isinstance(given, str):
        text, tokens = given, encoder.text(given) or encoder.beginning_of_text()
    else:
        check_tokens(given, len(tokenizer), "prompt")
        text, tokens = str(tokenizer.decode(given)), given
    if request.max_tokens == 0:
        check_length(parts, len(tokens))
        return _Prompt(index, text, tokens, None)
    sampling = sampling_of(
        request,
        parts,
        prompt=len(tokens),
        max_tokens=_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
        top=request.logprobs or 0,
    )
    return _Prompt(index, text, tokens, sampling)


async def _answer(work: _Work, parts: Service) -> Completion:
    answered = await together(_choices(work, prompt, parts) for prompt in work.prompts)
    generated = sum(count for _, count in answered)
    return _completion(
        work,
        parts,
        [choice for choices, _ in answered for choice in choices],
        _usage(work, generated),
    )


async def _choices(
    work: _Work, prompt: _Prompt, parts: Service
) -> tuple[list[CompletionChoice], int]:
    """A prompt's choices, and how many tokens were generated for them."""
    echoed = await _echoed(work, prompt, parts)
    if prompt.sampling is None:
        every = range(work.request.n or 1)
        return [_choice(work, parts, prompt, i, prompt.text, echoed, "length") for i in every], 0
    finished = await samples(parts, work.asked(prompt, prompt.sampling))
    before = prompt.text if work.request.echo else ""
    choices = []
    for index, sample in enumerate(finished):
        tokens = [*echoed, *((token.token, token.score) for token in sample.shown)]
        text = before + sample.text
        choices.append(_choice(work, parts, prompt, index, text, tokens, sample.finish))
    return choices, sum(len(sample.tokens) for sample in finished)


async def _echoed(work: _Work, prompt: _Prompt, parts: Service) -> Scored:
    """The prompt's own tokens and scores, where they are asked for."""
    if not work.request.echo or work.request.logprobs is None:
        return []
    scores = await parts.inference.prompt_log_probabilities(
        work.adapter, prompt.tokens, work.request.logprobs
    )
    parts.metrics.scored.inc(len(prompt.tokens))
    return list(zip(prompt.tokens, scores, strict=True))


def _choice(
    work: _Work,
    parts: Service,
    prompt: _Prompt,
    sample: int,
    text: str,
    tokens: Scored,
    finish: Finish,
) -> CompletionChoice:
    logprobs = None
    if work.request.logprobs is not None:
        logprobs = CompletionLogprobs(parts.token_texts).of(tokens)
    return CompletionChoice.model_construct(
        index=work.place(prompt, sample), text=text, finish_reason=finish, logprobs=logprobs
    )


async def _chunks(work: _Work, parts: Service) -> AsyncGenerator[Completion, None]:
    """Prompt after prompt."""
    generated = 0
    for prompt in work.prompts:
        async with aclosing(_choices_of_chunks(work, prompt, parts)) as choices:
            async for choice, count in choices:
                generated += count
                yield _completion(work, parts, [choice])
    if work.request.with_usage:
        yield _completion(work, parts, [], _usage(work, generated))


async def _choices_of_chunks(
    work: _Work, prompt: _Prompt, parts: Service
) -> AsyncGenerator[tuple[CompletionChoice, int], None]:
    """Pieces of a prompt's choices, and how many tokens were generated for each."""
    every = range(work.request.n or 1)
    logprobs = [CompletionLogprobs(parts.token_texts) for _ in every]

    def piece(sample: int, text: str, tokens: Scored, finish: Finish | None) -> CompletionChoice:
        wanted = work.request.logprobs is not None
        return CompletionChoice.model_construct(
            index=work.place(prompt, sample),
            text=text,
            finish_reason=finish,
            logprobs=logprobs[sample].of(tokens) if wanted else None,
        )

    if work.request.echo:
        echoed = await _echoed(work, prompt, parts)
        finish = "length" if prompt.sampling is None else None
        for sample in every:
            yield piece(sample, prompt.text, echoed, finish), 0
    if prompt.sampling is not None:
        async with aclosing(generate(parts, work.asked(prompt, prompt.sampling))) as tokens:
            async for token in tokens:
                scored = [] if token.is_end else [(token.token, token.score)]
                yield piece(token.sample, token.text, scored, token.finish), 1


def _usage(work: _Work, generated: int) -> CompletionUsage:
    return usage(sum(len(prompt.tokens) for prompt in work.prompts), generated)


def _completion(
    work: _Work,
    parts: Service,
    choices: list[CompletionChoice],
    used: CompletionUsage | None = None,
) -> Completion:
    answer = Completion.model_construct(
        id=work.id,
        object="text_completion",
        created=work.created,
        model=work.model,
        system_fingerprint=parts.fingerprint,
        choices=choices,
    )
    if used is not None or work.request.with_usage:
        answer.usage = used
    return answer
