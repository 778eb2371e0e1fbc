"""Intervals from the likeliest tokens along the answer that a model gives itself; see intervals.py.

Every service with `logprobs` can do that. A chat model shows 20 tokens a position, the completions
endpoint 5.
"""

import asyncio
import re

from backends.data import ScoringQuery, ScoringResult
from backends.errors import DataError, ServiceError
from backends.openai_api.answers import ChatAnswer, ListedToken, PathToken, TextAnswer
from backends.openai_api.asking import Request, on_the_wire
from backends.openai_api.failures import CONTENT_CODES, ContentRefused
from backends.openai_api.scoring.intervals import Position, Token, bound
from backends.openai_api.scoring.strategy import Prepared, stem_and_continuation
from backends.openai_api.tokens import Encode

_SHOWN_IN_CHATS = 20
_SHOWN_IN_TEXTS = 5
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_LONGEST_PATH = 64
"""How many tokens of an answer are paid for at the most; what candidates have beyond is bounded."""


class Top:
    """Scores with one model."""

    def __init__(self, model: str, encode: Encode) -> None:
        self._model = model
        self._encode = encode

    async def prepare(self, query: ScoringQuery) -> Prepared[ScoringResult]:
        """The greedy answer to the context, as long as the longest candidate."""
        # Not on the event loop's thread: the tokenizer may be one that asks the server over this loop.
        counts = await asyncio.to_thread(self._counts, query)
        length = max(
            count or len(text.encode())
            for count, text in zip(counts.values(), query.candidates.values(), strict=True)
        )
        body = {"model": self._model, "temperature": 0, "max_tokens": min(length, _LONGEST_PATH)}
        if query.messages is not None:
            shown = {"logprobs": True, "top_logprobs": _SHOWN_IN_CHATS}
            request = Request.chat(body | shown | {"messages": on_the_wire(query.messages)})
            return Prepared(request, lambda answer: _of_chat(answer, query, counts))
        stem, _ = stem_and_continuation(query.prompt or "", "")
        request = Request.text(body | {"logprobs": _SHOWN_IN_TEXTS, "prompt": stem})
        return Prepared(request, lambda answer: _of_text(answer, query, counts))

    def _counts(self, query: ScoringQuery) -> dict[str, int | None]:
        """How many tokens each candidate has after the context; None where that can't be told."""
        counts: dict[str, int | None] = {}
        for label, text in query.candidates.items():
            tokens = candidate_tokens(self._encode, query, text)
            counts[label] = len(tokens) if tokens else None
        return counts


def candidate_tokens(encode: Encode, query: ScoringQuery, text: str) -> tuple[int, ...] | None:
    """A candidate's tokens after the query's context, None where the tokenizer alone can't tell.

    Tokenizers that put a space before whatever they are given cut a text alone otherwise than after
    something else.

    Raises:
        DataError: the boundary is not one between tokens.
    """
    if query.messages is not None:
        alone, before, after = encode(text), encode("\n"), encode(f"\n{text}")
        return alone if after == before + alone else None
    stem, continuation = stem_and_continuation(query.prompt or "", text)
    before, whole = encode(stem), encode(stem + continuation)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise DataError(
            f"query '{query.id}', candidate '{text}': the boundary before it is not one between tokens: "
            "the tokenizer joins what stands before and after it; move the space or choose another wording"
        )
    return whole[len(before) :]


def chat_path(answer: ChatAnswer) -> list[Position]:
    """The positions of the answer's path.

    Raises:
        ContentRefused: there are no log-probabilities in it, as the service stopped it for its content.
        ServiceError: there are none.
    """
    choice = answer.choices[0] if answer.choices else None
    logprobs = choice.logprobs if choice else None
    if logprobs is None or logprobs.content is None:
        if choice and choice.finish_reason in CONTENT_CODES:
            raise ContentRefused("the service's content filter stopped the answer")
        raise ServiceError(
            "the answer has no log-probabilities; reasoning models and some services give none"
        )
    return [_position(step) for step in logprobs.content]


def _position(step: PathToken) -> Position:
    top = [_token(listed) for listed in step.top_logprobs]
    return Position.of(top, _token(step), _SHOWN_IN_CHATS)


def _token(listed: ListedToken) -> Token:
    told = text_bytes(listed.token) if listed.bytes is None else bytes(listed.bytes)
    return Token(told, listed.logprob)


def text_bytes(token: str) -> bytes | None:
    r"""The bytes of a token that is written as text; None where they are not all told.

    OpenAI writes a token that is no whole character as `bytes: \xe2\x80`, others with U+FFFD.
    """
    if token.startswith("bytes:") and "\\x" in token:
        told = token.removeprefix("bytes:").encode()
        return _ESCAPED.sub(lambda byte: bytes.fromhex(byte[1].decode()), told)
    return None if "\ufffd" in token else token.encode()


def _of_chat(
    answer: ChatAnswer, query: ScoringQuery, counts: dict[str, int | None]
) -> ScoringResult:
    texts = query.candidates
    return _result(query, chat_path(answer), texts, counts, _SHOWN_IN_CHATS)


def _of_text(
    answer: TextAnswer, query: ScoringQuery, counts: dict[str, int | None]
) -> ScoringResult:
    prompt = query.prompt or ""
    texts = {
        label: stem_and_continuation(prompt, text)[1] for label, text in query.candidates.items()
    }
    return _result(query, _text_path(answer), texts, counts, _SHOWN_IN_TEXTS)


def _text_path(answer: TextAnswer) -> list[Position]:
    logprobs = answer.choices[0].logprobs if answer.choices else None
    if logprobs is None or logprobs.top_logprobs is None:
        raise ServiceError("the answer has no log-probabilities")
    path = []
    steps = zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True)
    for token, logprob, top in steps:
        if logprob is None or top is None:
            raise ServiceError("the answer does not tell every token's log-probability")
        listed = [Token(text_bytes(text), value) for text, value in top.items()]
        path.append(Position.of(listed, Token(text_bytes(token), logprob), _SHOWN_IN_TEXTS))
    return path


def _result(
    query: ScoringQuery,
    path: list[Position],
    texts: dict[str, str],
    counts: dict[str, int | None],
    shown: int,
) -> ScoringResult:
    scores = {label: bound(text.encode(), path, counts[label]) for label, text in texts.items()}
    return ScoringResult(id=query.id, candidates=scores, method=f"top-{shown}")
