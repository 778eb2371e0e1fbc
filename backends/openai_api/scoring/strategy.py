"""What a way of asking is: one request for a query, and how its answer is read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from backends.data import GenerationResult, Query, ScoringQuery, ScoringResult
from backends.errors import DataError, RefusedError
from backends.openai_api.answers import ChatAnswer, TextAnswer
from backends.openai_api.asking import Request
from backends.openai_api.concurrency import in_any_order
from backends.openai_api.failures import ContentRefused

AnyQuery = TypeVar("AnyQuery", bound=Query)
AnyResult = TypeVar("AnyResult", ScoringResult, GenerationResult)


@dataclass(frozen=True)
class Prepared(Generic[AnyResult]):
    """A request and how its answer becomes the query's result.

    `read` raises ServiceError for an answer without what was asked for, DataError for candidates that the
    service turns out to change.
    """

    request: Request[Any]
    read: Callable[[Any], AnyResult]


Prepare = Callable[[AnyQuery], Awaitable[Prepared[AnyResult]]]
"""Makes the request for a query. Raises DataError for one that can't be asked, ServiceError."""


class Strategy(Protocol):
    """A way of scoring with one model."""

    async def prepare(self, query: ScoringQuery) -> Prepared[ScoringResult]:
        """The request for a query.

        Raises:
            DataError: the query can't be scored this way.
            ServiceError: what has to be asked before can't be had.
        """
        ...


async def all_but_refused(
    ask: Callable[[AnyQuery], Awaitable[AnyResult]], queries: Sequence[AnyQuery], limit: int
) -> AsyncIterator[AnyResult]:
    """As `in_any_order`, but what is refused for its content holds nothing up.

    Raises:
        RefusedError: some were, at the end.
    """
    refused: dict[str, str] = {}

    async def answer(query: AnyQuery) -> AnyResult | None:
        try:
            return await ask(query)
        except ContentRefused as error:
            refused[query.id] = str(error)
            return None

    async for result in in_any_order(answer, queries, limit):
        if result is not None:
            yield result
    if refused:
        raise RefusedError(refused)


AnyAnswer = ChatAnswer | TextAnswer


def stem_and_continuation(prompt: str, text: str) -> tuple[str, str]:
    """A text prompt and a candidate as they are cut into tokens: the space at the prompt's end moves.

    lm-evaluation-harness's rule (lm_eval/api/model.py, TemplateLM._encode_pair), as the local backend's.
    """
    stem = prompt.rstrip()
    return stem, prompt[len(stem) :] + text


def after_boundary(whole: list[int], context: list[int], where: str) -> list[int]:
    """The tokens after the context's. Raises DataError if the context's are not the first ones."""
    if whole[: len(context)] != context or len(whole) == len(context):
        raise DataError(
            f"{where}: the boundary before it is not one between tokens: the tokenizer joins what stands "
            "before and after it, or the chat template changes it; move the space or choose another wording"
        )
    return whole[len(context) :]
