"""Two ways to run a model: every sequence whole, or prefixes shared."""

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from transformers import PreTrainedModel

from backends.local.long_rope import LongRopeEngine, longest_short_text
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.prefix_support import active_dropout, obstacle
from backends.local.sequences import Prefilled, TokenScore, TokenSequence
from backends.local.settings import PrefixSharing

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs one model."""

    shares_prefixes: bool

    def log_probabilities(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """Natural log-probabilities of all targets, in order, float32 with gradients: (targets,)."""
        ...

    def stream(
        self, sequences: Sequence[TokenSequence], batch_tokens: int, top: int = 0
    ) -> Iterator[list[tuple[int, list[TokenScore]]]]:
        """The same without gradients for any number of sequences, computing `batch_tokens` at a time.

        Yields (index of the sequence, the scores of its targets) as they are ready; `top` asks for
        that many of the likeliest tokens at each target's place.

        Raises:
            DeviceMemoryError: the device can't hold what can't be divided further.
        """
        ...

    def prefill(
        self, prompts: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[list[tuple[int, Prefilled]]]:
        """Makes any number of prompts ready to be continued, computing `batch_tokens` at a time.

        Yields (index of the prompt, its state) as they are ready. Raises as `stream`.
        """
        ...


def choose_engine(model: PreTrainedModel, sharing: PrefixSharing) -> Engine:
    """The prefix engine wherever it computes what the plain way does; says once where it doesn't.

    The model's mode counts: in training mode dropout draws one mask for a shared prefix where plain
    sequences draw one each, which `sharing` "on" accepts and "auto" does not.
    """
    engine = _engine(model, sharing)
    return engine if longest_short_text(model) is None else LongRopeEngine(model, engine)


def _engine(model: PreTrainedModel, sharing: PrefixSharing) -> PlainEngine | PrefixEngine:
    if sharing == "off":
        return PlainEngine(model)
    if sharing == "auto" and model.training and active_dropout(model):
        _say_once(
            "prefixes are not shared in training: dropout would draw one mask for a shared prefix "
            "(local.prefix_sharing: on accepts that)"
        )
        return PlainEngine(model)
    reason = obstacle(model)
    if reason is not None:
        _say_once(f"prefixes are not shared: {reason}; every sequence is computed whole")
        return PlainEngine(model)
    return PrefixEngine(model)


@functools.cache
def _say_once(text: str) -> None:
    _log.warning(text)
