"""What the most likely tokens along one generated path say about a text's probability.

A service shows, at each position of a path that it generated itself, the k most likely tokens with their
log-probabilities. Let C be a candidate's bytes and let a *spelling* of C be a sequence of tokens whose
bytes, put together, are C. Its probability is the product of its tokens' (chain rule). How the model's
tokenizer spells C, and so which spelling's probability the score is, need not be known: the interval holds
the sum over all spellings (over all of n tokens, where the tokenizer told that C has n), and with it each
single one from above.

Walk along the path, with Q the probability of the path so far (Q = 1 at first) and R what is left of C. At
a position every spelling goes on with a token that starts R, and exactly one of these holds:

- the token is listed and is R: a spelling was seen whole, and its probability Q p is known;
- the token is listed, starts R and is the one that the path took: walk on with Q p and the rest;
- the token is listed, starts R, but the path went elsewhere: what such spellings add lies in [0, Q p],
  as what follows has a probability in [0, 1];
- the token is not listed. A single one has at most min(p_k, 1 - sum of the listed), as a more likely one
  would be listed; those with different lengths are different tokens, so together they have at most
  min(m p_k, 1 - sum), m being the number of lengths that no listed token has. They add [0, Q times that].

Where the path ends with some of C left, the rest adds [0, Q]. The upper end is the sum of all that was
said; the lower end is what was seen whole: the spelling with the fewest tokens, as tokenizers merge what
they can. Two candidates with a common start are each followed by themselves.

Three things about the wire: log-probabilities are rounded, so that the listed ones may sum to more than 1:
the sum is only believed to `ROUNDING`. -9999.0 marks a token whose log-probability is not told, and is
never exponentiated. Bytes identify a token, not its text; where a server can't tell the bytes (None), the
token may be any.

Source: https://platform.openai.com/docs/api-reference/chat/object (`logprobs`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.data import CandidateScore, LogProbability

ROUNDING = 1e-3
"""How far (nats) a told log-probability may be off before sums of them are trusted."""
NOT_TOLD = -9000.0
"""Whatever is below is the wire's mark for "not told", not a log-probability."""


@dataclass(frozen=True)
class Token:
    """A token that a service named: its bytes, if it told them, and its log-probability (nats)."""

    bytes: bytes | None
    logprob: float

    def rounded(self) -> "Token":
        """Itself, without the rounding step that a log-probability may be above 0 by."""
        return self if self.logprob <= 0 else Token(self.bytes, 0.0)


@dataclass(frozen=True)
class Position:
    """One step of the path: the most likely tokens (each told), and which of them the path took.

    `floor` is the least log-probability of the k most likely ones: no token that is not listed has more.
    `taken` is None where the path took a token whose log-probability was not told.
    """

    listed: tuple[Token, ...]
    taken: int | None
    floor: float

    @classmethod
    def of(cls, top: Iterable[Token], sampled: Token, k: int) -> "Position":
        """From what stands on the wire: the `k` most likely tokens (at most) and the sampled one.

        Servers may list the sampled token besides the k most likely ones, or leave it out of the list.
        """
        listed = [token.rounded() for token in top if token.logprob > NOT_TOLD]
        sampled = sampled.rounded()
        ranked = sorted((token.logprob for token in listed), reverse=True)
        floor = ranked[min(k, len(ranked)) - 1] if ranked else 0.0
        if sampled not in listed and sampled.logprob > NOT_TOLD:
            listed.append(sampled)
        taken = listed.index(sampled) if sampled in listed else None
        return cls(tuple(listed), taken, floor)

    def unlisted(self, n_tokens: int) -> float:
        """The most (log) that `n_tokens` tokens can have together if none of them is listed."""
        if not n_tokens:
            return -math.inf
        total = math.exp(log_sum(token.logprob for token in self.listed) - ROUNDING)
        left = max(1 - total, ROUNDING)
        return min(self.floor + math.log(n_tokens), math.log(left))


def bound(text: bytes, path: Sequence[Position], n_tokens: int | None = None) -> CandidateScore:
    """The interval of a candidate's log-probability, and of its first token's; the module derives it.

    `n_tokens` is how many tokens the model's tokenizer makes of it, where that is known.
    """
    walk = _Walk(text, n_tokens)
    if all(walk.step(position) for position in path):
        walk.stop()
    return walk.score()


class _Walk:
    """A candidate on its way along the path. All probabilities are logarithms."""

    def __init__(self, text: bytes, n_tokens: int | None) -> None:
        self._rest = text
        # A token has a byte at least; a count that is not of this text says nothing.
        self._n_tokens = n_tokens if n_tokens and n_tokens <= len(text) else None
        self._followed: list[float] = []
        self._seen: list[float] | None = None
        self._possible: list[float] = []
        self._starts: list[float] = [0.0]

    def step(self, position: Position) -> bool:
        """Takes in one position; False where the path and the candidate part, or the candidate ends."""
        lengths = self._lengths()
        starts = [token for token in position.listed if self._goes_on(token, lengths)]
        listed = {len(token.bytes) for token in starts if token.bytes is not None}
        unlisted = position.unlisted(len(lengths) - len(listed))
        if not self._followed:
            self._starts = [*(token.logprob for token in starts), unlisted]
        whole = [token.logprob for token in starts if token.bytes == self._rest]
        if whole and self._seen is None:
            # Of several tokens with the same bytes, which is the tokenizer's own can't be told.
            self._seen = [*self._followed, min(whole)]
        taken = None if position.taken is None else position.listed[position.taken]
        if taken not in starts or taken.bytes is None or taken.bytes == self._rest:
            self._add(*(token.logprob for token in starts), unlisted)
            return False
        self._add(*(token.logprob for token in starts if token is not taken), unlisted)
        self._followed.append(taken.logprob)
        self._rest = self._rest[len(taken.bytes) :]
        return True

    def stop(self) -> None:
        """The path has ended; whatever is left of the candidate may follow with certainty."""
        self._add(0.0)

    def score(self) -> CandidateScore:
        first_high = min(0.0, log_sum(self._starts))
        low = -math.inf if self._seen is None else math.fsum(self._seen)
        high = min(first_high, log_sum(self._possible))
        first_low = -math.inf if self._seen is None else self._seen[0]
        most = len(self._followed) + max(1, len(self._rest))  # of what was not seen whole
        along = most if self._seen is None else len(self._seen)
        return CandidateScore(
            # The maximum only takes back what floating point took off.
            total=LogProbability(low=low, high=max(low, high)),
            first_token=LogProbability(low=first_low, high=max(first_low, first_high)),
            n_tokens=self._n_tokens or along,
        )

    def _add(self, *logprobs: float) -> None:
        reached = math.fsum(self._followed)
        self._possible += [reached + value for value in logprobs]

    def _lengths(self) -> range:
        """The lengths in bytes that the next token of a spelling can have."""
        if self._n_tokens is None:
            return range(1, len(self._rest) + 1)
        after = self._n_tokens - len(self._followed) - 1
        if after <= 0:
            return range(len(self._rest), len(self._rest) + 1 + after)
        return range(1, len(self._rest) - after + 1)

    def _goes_on(self, token: Token, lengths: range) -> bool:
        if token.bytes is None:
            return True
        return len(token.bytes) in lengths and self._rest.startswith(token.bytes)


def log_sum(logprobs: Iterable[float]) -> float:
    """The logarithm of a sum of probabilities that are given as logarithms; -inf of none."""
    values = list(logprobs)
    largest = max(values, default=-math.inf)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))
