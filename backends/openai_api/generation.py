"""Sampled text over the wire."""

from collections.abc import AsyncIterator, Sequence

from backends.data import GenerationQuery, GenerationResult, Query
from backends.errors import ServiceError
from backends.openai_api.asking import Asker, Request, on_the_wire
from backends.openai_api.concurrency import in_any_order
from backends.openai_api.tokens import chat_tokens


class Generation:
    """Generates with whichever model is asked for."""

    def __init__(self, asker: Asker, concurrency: int) -> None:
        self._asker = asker
        self._concurrency = concurrency

    async def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> AsyncIterator[GenerationResult]:
        """One result a query, each as it is ready and in any order. Raises ServiceError."""

        async def answer(query: GenerationQuery) -> GenerationResult:
            return await self._answer(model, query)

        async for result in in_any_order(answer, queries, self._concurrency):
            yield result

    async def _answer(self, model: str, query: GenerationQuery) -> GenerationResult:
        body = {
            "model": model,
            "max_tokens": query.max_tokens,
            "temperature": query.temperature,
            "top_p": 1,
            "n": query.n_samples,
            "seed": query.seed,
        }
        what = f"query '{query.id}'"
        if query.messages is not None and query.prefill is not None:
            connection = self._asker.connection
            tokens = await chat_tokens(connection, model, query.messages, query.prefill)
            choices = (await self._asker.ask(what, Request.text(body | {"prompt": tokens}))).choices
            texts = {choice.index: choice.text for choice in choices}
        elif query.messages is not None:
            request = Request.chat(body | {"messages": on_the_wire(query.messages)})
            choices = (await self._asker.ask(what, request)).choices
            texts = {choice.index: choice.message.content or "" for choice in choices}
        else:
            request = Request.text(body | {"prompt": query.prompt})
            choices = (await self._asker.ask(what, request)).choices
            texts = {choice.index: choice.text for choice in choices}
        if len(texts) != query.n_samples:
            raise ServiceError(f"{what}: {len(texts)} texts came back for {query.n_samples} asked")
        in_order = tuple(texts[index] for index in sorted(texts))
        return GenerationResult(id=query.id, prompt=written_out(query), texts=in_order)


def written_out(query: Query) -> str:
    """The context for readers; a hosted service does not tell how its model sees it."""
    if query.messages is None:
        return query.prompt or ""
    turns = [f"{message.role}: {message.content}" for message in query.messages]
    return "\n\n".join(turns + ([f"assistant: {query.prefill}"] if query.prefill else []))
