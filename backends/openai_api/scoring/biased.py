"""Probabilities of tokens that a service does not list, by biased sampling.

`logit_bias` adds b to one token's logit before sampling at temperature 1. Of that token's probability p,
odds p / (1 - p), it makes q with odds q / (1 - q) = e^b p / (1 - p), as the other logits stay:

    logit p = logit q - b

With b chosen so that q is near 1/2, counting the token among n samples gives an interval of q (Clopper
and Pearson's), and so one of p, however small p is: with n = 128 its half width is 0.6 nats. It is one of
confidence (99.9 %), not a bound; results record it as `biased-n`. It narrows a candidate's first token,
and from above the candidate; more than that needs the other tokens' probabilities as well.

On several models `logit_bias` has no effect or not that one, so a canary is asked first.
"""

import asyncio
import math
import zlib
from dataclasses import dataclass

from backends.data import CandidateScore, LogProbability, Message, ScoringQuery, ScoringResult
from backends.errors import ServiceError
from backends.openai_api.asking import Asker, Request, on_the_wire
from backends.openai_api.scoring.binomial import clopper_pearson
from backends.openai_api.scoring.intervals import Position, log_sum
from backends.openai_api.scoring.top import candidate_tokens, chat_path
from backends.openai_api.tokens import Encode

_CONFIDENCE = 0.999
_CANARY_CONFIDENCE = 0.9999
_SEARCH_SAMPLES = 8
_STRONGEST = 100
_MOST_SAMPLES = 128
"""The most answers that one request may ask for."""
_RARE = (" zebra", " violin", "Zebra", " kernel", " cactus", "violin")
_CANARY = (Message(role="user", content="What is the capital of France?"),)


@dataclass(frozen=True)
class _Target:
    """A token to be sampled: its id and its text."""

    id: int
    text: str


class Biased:
    """Narrows the scores that one model's likeliest tokens leave wide."""

    def __init__(self, asker: Asker, model: str, encode: Encode, n_samples: int) -> None:
        self._asker = asker
        self._model = model
        self._encode = encode
        self._n_samples = n_samples

    async def why_not(self) -> str | None:
        """Why it can't be done with this model; None if it can. A few requests. Raises ServiceError.

        Three things are asked: +100 on a rare token forces it; log-probabilities are returned as they
        are without the bias; and a token that is listed is drawn as often as its bias says.
        """
        plain = await self._first_position(None)
        rare = await asyncio.to_thread(self._rare, plain)
        named = await asyncio.to_thread(self._named, plain)
        if rare is None or not named:
            return "no token was found to try it with"
        refusable = self._request(_CANARY, _bias(rare, _STRONGEST), 1)
        if await self._asker.is_refused("try logit_bias", refusable):
            return "the service refuses logit_bias"
        if await self._count(_CANARY, rare, _STRONGEST, 4) < 4:
            return "logit_bias has no effect"
        biased = await self._first_position(_bias(rare, _STRONGEST))
        likeliest, logprob = named[0]
        if abs(_log_probability_of(biased, likeliest.text) - logprob) > 0.2:
            return "log-probabilities are returned with the bias in them"
        target, logprob = named[-1]  # the least likely, as a large bias shows its effect best
        bias = round(-_logit(logprob))
        hits = await self._count(_CANARY, target, bias, self._n_samples)
        low, high = clopper_pearson(hits, self._n_samples, _CANARY_CONFIDENCE)
        if not low <= 1 / (1 + math.exp(-_logit(logprob) - bias)) <= high:
            return "logit_bias has another effect than adding to the logit"
        return None

    async def narrow(self, query: ScoringQuery, result: ScoringResult) -> ScoringResult:
        """A chat's result, with the candidates narrowed whose first token was not seen.

        Raises:
            ServiceError: the service refuses or keeps failing.
        """
        candidates = dict(result.candidates)
        for label, score in result.candidates.items():
            if query.messages is None or score.first_token.low > -math.inf:
                continue
            found = await asyncio.to_thread(self._first_token, query, query.candidates[label])
            if found is None:
                continue
            target, is_whole = found
            sampled = await self._sampled(query.messages, target, score.first_token.high)
            candidates[label] = narrowed(score, sampled, is_whole=is_whole)
        if candidates == result.candidates:
            return result
        method = f"{result.method}+biased-{self._n_samples}"
        return ScoringResult(id=query.id, candidates=candidates, method=method)

    async def _sampled(
        self, messages: tuple[Message, ...], target: _Target, at_most: float
    ) -> LogProbability:
        bias = await self._evening_bias(messages, target, at_most)
        hits = await self._count(messages, target, bias, self._n_samples)
        low, high = clopper_pearson(hits, self._n_samples, _CONFIDENCE)
        return LogProbability(low=unbiased(low, bias), high=unbiased(high, bias))

    async def _evening_bias(
        self, messages: tuple[Message, ...], target: _Target, at_most: float
    ) -> int:
        """A bias with which the token comes about every other time; it has `at_most` (log) without."""
        low, high = None, None
        bias = min(_STRONGEST, max(0, math.ceil(-at_most)))
        while True:
            hits = await self._count(messages, target, bias, _SEARCH_SAMPLES)
            if hits < _SEARCH_SAMPLES // 4:
                low = bias
            elif hits > _SEARCH_SAMPLES - _SEARCH_SAMPLES // 4:
                high = bias
            else:
                return bias
            following = _between(low, high)
            if following == bias:
                return bias
            bias = following

    async def _count(
        self, messages: tuple[Message, ...], target: _Target, bias: int, n: int
    ) -> int:
        """How many of `n` sampled tokens are the target."""
        hits = 0
        for start in range(0, n, _MOST_SAMPLES):
            size = min(_MOST_SAMPLES, n - start)
            seed = zlib.crc32(f"{messages} {target.id} {bias} {n} {start}".encode())
            request = self._request(messages, _bias(target, bias), size, seed=seed)
            answer = await self._asker.ask("sample with a bias", request)
            if len(answer.choices) != size:
                raise ServiceError(
                    f"sample with a bias: {len(answer.choices)} answers came back for {size} asked"
                )
            hits += sum(choice.message.content == target.text for choice in answer.choices)
        return hits

    async def _first_position(self, bias: dict[str, int] | None) -> Position:
        request = self._request(_CANARY, bias, 1, logprobs=True, top_logprobs=20)
        path = chat_path(await self._asker.ask("try logit_bias", request))
        return path[0] if path else Position((), None, 0.0)

    def _request(
        self, messages: tuple[Message, ...], bias: dict[str, int] | None, n: int, **more: object
    ) -> Request:
        body = {
            "model": self._model,
            "messages": on_the_wire(messages),
            "max_tokens": 1,
            "temperature": 1,
            "top_p": 1,
            "n": n,
            **more,
        }
        return Request.chat(body if bias is None else body | {"logit_bias": bias})

    def _first_token(self, query: ScoringQuery, text: str) -> tuple[_Target, bool] | None:
        """A candidate's first token, and whether it is all of it; None where its text can't be told."""
        tokens = candidate_tokens(self._encode, query, text)
        if not tokens:
            return None
        for end in range(len(text), 0, -1):
            if self._encode(text[:end]) == tokens[:1]:
                return _Target(tokens[0], text[:end]), len(tokens) == 1
        return None

    def _rare(self, position: Position) -> _Target | None:
        listed = {token.bytes for token in position.listed}
        for text in _RARE:
            tokens = self._encode(text)
            if len(tokens) == 1 and text.encode() not in listed:
                return _Target(tokens[0], text)
        return None

    def _named(self, position: Position) -> list[tuple[_Target, float]]:
        """The listed tokens that the tokenizer names the same way, likeliest first."""
        named = []
        for token in sorted(position.listed, key=lambda token: -token.logprob):
            text = (token.bytes or b"").decode(errors="replace")
            tokens = self._encode(text)
            if len(tokens) == 1 and token.logprob < 0:
                named.append((_Target(tokens[0], text), token.logprob))
        return named


def unbiased(q: float, bias: int) -> float:
    """The log-probability of a token whose probability under the bias is `q`."""
    if q in (0.0, 1.0):
        return -math.inf if q == 0 else 0.0
    return -log_sum([0.0, bias - math.log(q) + math.log1p(-q)])


def narrowed(score: CandidateScore, sampled: LogProbability, *, is_whole: bool) -> CandidateScore:
    """What is left of a score's bounds, given the confidence interval of its first token.

    Bounds that the interval contradicts are kept as they were.
    """
    if sampled.low > score.first_token.high:
        return score
    high = min(score.first_token.high, sampled.high)
    first = LogProbability(low=max(score.first_token.low, sampled.low), high=high)
    total = LogProbability(low=score.total.low, high=min(score.total.high, high))
    return score.model_copy(update={"first_token": first, "total": first if is_whole else total})


def _bias(target: _Target, bias: int) -> dict[str, int]:
    return {str(target.id): bias}


def _between(low: int | None, high: int | None) -> int:
    if high is None:
        return min(_STRONGEST, (low or 0) + 8)
    if low is None:
        return max(-_STRONGEST, high - 8)
    return (low + high) // 2


def _logit(logprob: float) -> float:
    return logprob - math.log(-math.expm1(logprob))


def _log_probability_of(position: Position, text: str) -> float:
    return max((t.logprob for t in position.listed if t.bytes == text.encode()), default=-math.inf)
