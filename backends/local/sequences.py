"""What forward passes are asked, and what they answer."""

from collections.abc import Callable
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
