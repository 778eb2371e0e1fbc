"""Answers drawn or taken greedily, token by token, over the rows of a batch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from backends.local.constraints import masked
from backends.local.decoding import Batch, Vocabulary
from backends.local.detokenising import TextStream
from backends.local.projection import scores_of
from backends.local.sampling import Draws, Sampling, choose_tokens, penalised
from backends.local.sequences import TokenScore

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class GeneratedToken:
    """One token of an answer, in the order it was generated.

    `sample` says which of the `Sampling.n` answers it continues. `text` is what the answer gains: it
    can lag behind `token_bytes`, where a character or a stop string may be under way, and never
    holds any of a stop string. The last token of an answer has its `finish`; one that ends the text
    by being the model's end token (`is_end`) has no bytes.
    """

    sample: int
    token: int
    score: TokenScore
    token_bytes: bytes
    text: str
    finish: Finish | None
    is_end: bool


@dataclass(eq=False)
class Answer:
    """One answer under way: a row of a batch."""

    prompt: Sequence[int]
    sampling: Sampling
    sample: int
    vocabulary: Vocabulary
    tokens: list[int] = field(default_factory=list[int])
    cancelled: bool = False
    finish: Finish | None = None

    def __post_init__(self) -> None:
        self.draws = Draws(self.sampling.seed, self.sample)
        self.counts = Counter(self.tokens)
        constraint = self.sampling.constraint
        self.followed = None if constraint is None else constraint.follow()
        self._text = TextStream(self.vocabulary.token_bytes, self.sampling.stop)

    def take(self, token: int, score: TokenScore) -> GeneratedToken:
        """Goes on by a token."""
        self.tokens.append(token)
        self.counts[token] += 1
        if self.followed is not None:
            self.followed.take(token)
        is_end = token in self.vocabulary.ends
        text = "" if is_end else self._text.add(token)
        if is_end or self._text.stopped or (self.followed and self.followed.is_complete):
            self.finish = "stop"
        elif len(self.tokens) >= self.sampling.max_tokens or self._is_lost:
            self.finish = "length"
        if self.finish:
            text += self._text.end()
        raw = b"" if is_end else self.vocabulary.token_bytes.of(token)
        return GeneratedToken(self.sample, token, score, raw, text, self.finish, is_end)

    @property
    def _is_lost(self) -> bool:
        """Whether its grammar can be followed no further: it is then cut off."""
        return self.followed is not None and self.followed.has_failed


def answers_to(
    prompt: Sequence[int],
    sampling: Sampling,
    vocabulary: Vocabulary,
    samples: Iterable[int] | None = None,
) -> list[Answer]:
    """Those of a prompt's `sampling.n` answers (default: all), none of them begun."""
    chosen = range(sampling.n) if samples is None else samples
    return [Answer(prompt, sampling, sample, vocabulary) for sample in chosen]


@torch.inference_mode()
def choose(batch: Batch[Answer]) -> list[tuple[Answer, GeneratedToken]]:
    """The next token of each answer; those that end with it leave, and so do cancelled ones."""
    batch.keep([i for i, row in enumerate(batch.rows) if not row.cancelled])
    if not batch.rows:
        return []
    samplings = [row.sampling for row in batch.rows]
    logits = penalised(batch.logits, samplings, [row.counts for row in batch.rows])
    allowed = masked(logits, [row.followed for row in batch.rows])
    tokens = choose_tokens(allowed, samplings, [row.draws for row in batch.rows])
    scores = _scores(logits, tokens, samplings)
    made = [
        (row, row.take(token, score))
        for row, token, score in zip(batch.rows, tokens, scores, strict=True)
    ]
    batch.keep([i for i, row in enumerate(batch.rows) if not row.finish])
    return made


def _scores(
    logits: torch.Tensor, tokens: Sequence[int], samplings: Sequence[Sampling]
) -> list[TokenScore]:
    scores: dict[int, TokenScore] = {}
    for top in {sampling.top for sampling in samplings}:
        rows = [row for row, sampling in enumerate(samplings) if sampling.top == top]
        each, chosen = (
            torch.tensor(numbers, device=logits.device)
            for numbers in (range(len(rows)), [tokens[row] for row in rows])
        )
        of_rows = logits if len(rows) == len(samplings) else logits[rows]
        scores |= zip(rows, scores_of(of_rows, each, chosen, top), strict=True)
    return [scores[row] for row in range(len(samplings))]
