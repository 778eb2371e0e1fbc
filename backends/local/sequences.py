"""What forward passes are asked, and what they answer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

KeysAndValues = tuple[torch.Tensor | None, torch.Tensor | None]
"""One layer's in a cache, both (rows, key heads, positions, width); a layer may use another's."""


@dataclass(frozen=True)
class TokenSequence:
    """Tokens, and the positions of those whose log-probability is wanted.

    `targets` ascends and never holds position 0, which nothing precedes. In training the targets are
    the tokens that carry loss; in scoring, a candidate's.
    """

    tokens: list[int]
    targets: list[int]

    @property
    def sequences(self) -> "tuple[TokenSequence, ...]":
        """What is computed of it in training: itself."""
        return (self,)


@dataclass(frozen=True)
class Pair:
    """The same prompt with an answer that is preferred, and with one that is not.

    The answers are the targets. `reference` holds their natural log-probabilities under the model that
    training begins with.
    """

    chosen: TokenSequence
    rejected: TokenSequence
    reference: tuple[float, float] = (0.0, 0.0)

    @property
    def sequences(self) -> tuple[TokenSequence, ...]:
        """What is computed of it in training: both."""
        return self.chosen, self.rejected

    @property
    def tokens(self) -> list[int]:
        """Of the longer one, which tell what it is like."""
        return max(self.chosen.tokens, self.rejected.tokens, key=len)


Learned = TokenSequence | Pair
"""What a training has many of."""


def n_tokens(examples: Iterable[Learned]) -> int:
    """How many tokens they have in all."""
    return sum(len(sequence.tokens) for e in examples for sequence in e.sequences)


@dataclass(frozen=True)
class TokenScore:
    """The natural log-probability of a token given all before it, under the model's own distribution.

    `top` holds the likeliest tokens at its place with theirs, likeliest first.
    """

    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Prefilled:
    """A prompt ready to be continued: the logits of what follows (vocabulary,), and each layer's cache.

    `layers` is None where the model was run without one; otherwise it gives them, of one row, on demand:
    many an answer ends with its first token.
    """

    logits: torch.Tensor
    layers: Callable[[], list[KeysAndValues]] | None
