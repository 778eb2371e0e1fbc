"""Exact scores from the log-probabilities of the prompt's own tokens (`echo`), where a server gives them.

vLLM and `kaarel-bet serve` do: `/tokenize` cuts a context and each candidate after it into tokens, and one
request to `/completions` with a list of token lists returns the log-probability of every token. Hosted
models that did so are retired, and llama.cpp's server refuses `echo`.
"""

import math
import re

from backends.data import CandidateScore, LogProbability, ScoringQuery, ScoringResult
from backends.errors import DataError, ServiceError
from backends.openai_api.answers import TextAnswer, TextLogprobs
from backends.openai_api.asking import Asker, Request
from backends.openai_api.scoring.strategy import (
    Prepared,
    after_boundary,
    stem_and_continuation,
)
from backends.openai_api.tokens import can_tokenize, chat_tokens, tokenize_at

METHOD = "echo"
_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
"""How SentencePiece names a token that is a single byte."""


class Echo:
    """Scores with one model of a server that has both endpoints."""

    def __init__(self, asker: Asker, model: str) -> None:
        self._asker = asker
        self._model = model

    async def is_available(self) -> bool:
        """Whether the server does all of it for this model: two small requests. Raises ServiceError."""
        connection = self._asker.connection
        if not await can_tokenize(connection, self._model):
            return False
        body = {"model": self._model, "prompt": "a b c", "add_special_tokens": False}
        tokens = await tokenize_at(connection, body)
        request = self._request([tokens])
        if len(tokens) < 2 or await self._asker.is_refused("try echo", request):
            return False
        # Some servers take the parameters and leave the prompt out all the same.
        [choice] = (await self._asker.ask("try echo", request)).choices[:1] or [None]
        if choice is None or choice.logprobs is None:
            return False
        told = choice.logprobs.token_logprobs[: len(tokens)]
        # Others put a token of their own before it, which would shift every score by one.
        echoed = _plain("".join(choice.logprobs.tokens[: len(tokens)]))
        return echoed == "abc" and told[0] is None and None not in told[1:]

    async def prepare(self, query: ScoringQuery) -> Prepared[ScoringResult]:
        """All of the query's candidates after its context, in one request."""
        context = await self._context(query)
        candidates: dict[str, list[int]] = {}
        for label, text in query.candidates.items():
            where = f"query '{query.id}', candidate '{label}'"
            whole = await self._whole(query, text)
            candidates[label] = after_boundary(whole, context, where)
            if query.messages is not None:
                await self._check_edges(query, (query.prefill or "") + text, whole, where)
            for other in candidates:
                if other != label and candidates[other] == candidates[label]:
                    raise DataError(
                        f"query '{query.id}': candidates '{other}' and '{label}' have the same tokens; "
                        "their scores could not be told apart"
                    )
        return Prepared(
            self._request([context + tokens for tokens in candidates.values()]),
            lambda answer: _result(answer, query, len(context), candidates),
        )

    def _request(self, prompts: list[list[int]]) -> Request[TextAnswer]:
        return Request.text(
            {
                "model": self._model,
                "prompt": prompts,
                "echo": True,
                "logprobs": 1,
                "max_tokens": 0,
                "temperature": 0,
            }
        )

    async def _context(self, query: ScoringQuery) -> list[int]:
        if query.messages is not None:
            tokens = await self._chat(query, query.prefill)
            if query.prefill is not None:
                where = f"query '{query.id}', prefill"
                await self._check_edges(query, query.prefill, tokens, where)
            return tokens
        stem, _ = stem_and_continuation(query.prompt or "", "")
        tokens = await self._tokenize(prompt=stem, add_special_tokens=True)
        if not tokens:
            raise DataError(
                f"query '{query.id}': the prompt has no tokens, so nothing precedes the candidates that "
                "could predict them; write a prompt"
            )
        return tokens

    async def _whole(self, query: ScoringQuery, text: str) -> list[int]:
        if query.messages is not None:
            return await self._chat(query, (query.prefill or "") + text)
        stem, continuation = stem_and_continuation(query.prompt or "", text)
        return await self._tokenize(prompt=stem + continuation, add_special_tokens=True)

    async def _tokenize(self, **body: object) -> list[int]:
        return await tokenize_at(self._asker.connection, {"model": self._model, **body})

    async def _chat(self, query: ScoringQuery, answer: str | None) -> list[int]:
        return await chat_tokens(self._asker.connection, self._model, query.messages or (), answer)

    async def _check_edges(
        self, query: ScoringQuery, answer: str, tokens: list[int], where: str
    ) -> None:
        """Chat templates that strip messages would have another candidate scored than was asked for."""
        bare = answer.strip()
        if bare == answer:
            return
        if not bare or await self._chat(query, bare) == tokens:
            raise DataError(
                f"{where}: the model's chat template strips the spaces around it; leave them out"
            )


def _result(
    answer: TextAnswer, query: ScoringQuery, start: int, candidates: dict[str, list[int]]
) -> ScoringResult:
    choices = sorted(answer.choices, key=lambda choice: choice.index)
    if len(choices) != len(candidates):
        raise ServiceError(
            f"query '{query.id}': {len(candidates)} prompts were sent, {len(choices)} came back"
        )
    scores = {}
    for (label, tokens), choice in zip(candidates.items(), choices, strict=True):
        where = f"query '{query.id}', candidate '{label}'"
        if choice.logprobs is None:
            raise ServiceError(f"{where}: the answer has no log-probabilities")
        end = start + len(tokens)
        _check_text(choice.logprobs.tokens[start:end], query.candidates[label], where)
        scores[label] = _score(choice.logprobs, start, end, where)
    return ScoringResult(id=query.id, candidates=scores, method=METHOD)


def _score(logprobs: TextLogprobs, start: int, end: int, where: str) -> CandidateScore:
    told = [value for value in logprobs.token_logprobs[start:end] if value is not None]
    if len(told) != end - start:
        raise ServiceError(f"{where}: the answer does not tell every token's log-probability")
    return CandidateScore(
        total=LogProbability.exact(math.fsum(told)),
        first_token=LogProbability.exact(told[0]),
        n_tokens=len(told),
    )


def _check_text(tokens: list[str], text: str, where: str) -> None:
    """That the scored tokens spell the candidate; only by what every server writes the same way."""
    if _plain("".join(tokens)) != _plain(text):
        raise ServiceError(
            f"{where}: the server scored {''.join(tokens)!r} instead; its chat template changes it"
        )


def _plain(text: str) -> str:
    text = _BYTE_TOKEN.sub("", text)
    return "".join(character for character in text if character.isascii() and character.isalnum())
