"""Sampled text over the wire."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial

from backends.data import GenerationQuery, GenerationResult, Query
from backends.errors import ServiceError
from backends.openai_api.answers import ChatAnswer, TextAnswer
from backends.openai_api.asking import Asker, Request, on_the_wire
from backends.openai_api.availability import is_openais_own
from backends.openai_api.scoring.batches import Batches
from backends.openai_api.scoring.strategy import Prepared, all_but_refused
from backends.openai_api.settings import ScoringSettings
from backends.openai_api.tokens import chat_tokens

MOST_SAMPLES = 128
"""Of a request: OpenAI's limit on `n`."""


class Generation:
    """Generates with whichever model is asked for."""

    def __init__(self, asker: Asker, settings: ScoringSettings) -> None:
        self._asker = asker
        self._settings = settings

    async def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> AsyncIterator[GenerationResult]:
        """A result a request, each as it is ready and in any order.

        Raises:
            RefusedError: the service will not answer some queries.
            ServiceError: it can't be reached or refuses.
        """

        async def prepare(query: GenerationQuery) -> Prepared[GenerationResult]:
            return await self._prepared(model, query)

        async def answer(query: GenerationQuery) -> GenerationResult:
            prepared = await prepare(query)
            return prepared.read(await self._asker.ask(f"query '{query.id}'", prepared.request))

        concurrency = self._settings.concurrency
        parts = [part for query in queries for part in in_requests(query)]
        if self._settings.batch:
            results = Batches(self._asker, concurrency).ask(prepare, parts)
        else:
            results = all_but_refused(answer, parts, concurrency)
        async for result in results:
            yield result

    async def _prepared(self, model: str, query: GenerationQuery) -> Prepared[GenerationResult]:
        is_chat = query.messages is not None and query.prefill is None
        # Reasoning models refuse the old name, which other servers may know alone.
        renamed = is_chat and is_openais_own(self._asker.connection.address)
        body = {
            "model": model,
            "max_completion_tokens" if renamed else "max_tokens": query.max_tokens,
            "temperature": query.temperature,
            "top_p": 1,
            "n": query.n_samples,
            "seed": query.seed + query.first_sample,  # or each request would have the same samples
        }
        prompt: str | list[int] = query.prompt or ""
        if is_chat and query.messages is not None:
            request = Request.chat(body | {"messages": on_the_wire(query.messages)})
            return Prepared(request, partial(_of_chat, query))
        if query.messages is not None:
            connection = self._asker.connection
            prompt = await chat_tokens(connection, model, query.messages, query.prefill or "")
        return Prepared(Request.text(body | {"prompt": prompt}), partial(_of_text, query))


def _of_chat(query: GenerationQuery, answer: ChatAnswer) -> GenerationResult:
    return _result(query, {one.index: one.message.content or "" for one in answer.choices})


def _of_text(query: GenerationQuery, answer: TextAnswer) -> GenerationResult:
    return _result(query, {one.index: one.text for one in answer.choices})


def _result(query: GenerationQuery, texts: Mapping[int, str]) -> GenerationResult:
    if len(texts) != query.n_samples:
        raise ServiceError(
            f"query '{query.id}': {len(texts)} texts came back for {query.n_samples} asked"
        )
    in_order = tuple(texts[index] for index in sorted(texts))
    first = query.first_sample
    prompt = written_out(query) if first == 0 else ""
    return GenerationResult(id=query.id, prompt=prompt, texts=in_order, first_sample=first)


def in_requests(query: GenerationQuery) -> Iterator[GenerationQuery]:
    """A query's samples, as few requests as the service allows."""
    for first in query.samples[::MOST_SAMPLES]:
        yield query.part(range(first, min(first + MOST_SAMPLES, query.samples.stop)))


def written_out(query: Query) -> str:
    """The context for readers; a hosted service does not tell how its model sees it."""
    if query.messages is None:
        return query.prompt or ""
    turns = [f"{message.role}: {message.content}" for message in query.messages]
    return "\n\n".join(turns + ([f"assistant: {query.prefill}"] if query.prefill else []))
