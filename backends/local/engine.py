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
from backends.local.prefix_support import obstacle
from backends.local.sequences import Prefilled, TokenScore, TokenSequence
from backends.local.settings import PrefixSharing
from backends.local.training_noise import LORA_DROPOUT, training_noise

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

    The model's mode counts: in training mode noise (dropout, jitter) is drawn once for a shared prefix
    where plain sequences draw their own each, which `sharing` "on" accepts and "auto" does not.
    """
    noise = training_noise(model) if model.training else {}
    own = {name: amount for name, amount in noise.items() if name != LORA_DROPOUT}
    if own:
        say_once(f"training draws noise that the model's own config asks for: {_listed(own)}")
    if sharing == "off":
        return _for_any_length(model, PlainEngine(model))
    if sharing == "auto" and noise:
        say_once(
            f"prefixes are not shared in training: {_listed(noise)} would be drawn once for a shared "
            "prefix (local.prefix_sharing: on accepts that)"
        )
        return _for_any_length(model, PlainEngine(model))
    consequence = "prefixes are not shared: {}; every sequence is computed whole"
    return _for_any_length(model, _sharing_if_possible(model, consequence))


def choose_answering_engine(model: PreTrainedModel) -> Engine:
    """What keeps keys and values of a text under way wherever possible, though no prefix be shared."""
    consequence = (
        "keys and values are not kept: {}; each token of an answer computes its whole text"
    )
    return _for_any_length(model, _sharing_if_possible(model, consequence))


def _sharing_if_possible(model: PreTrainedModel, consequence: str) -> PlainEngine | PrefixEngine:
    reason = obstacle(model)
    if reason is None:
        return PrefixEngine(model)
    say_once(consequence.format(reason))
    return PlainEngine(model)


def _for_any_length(model: PreTrainedModel, engine: PlainEngine | PrefixEngine) -> Engine:
    return engine if longest_short_text(model) is None else LongRopeEngine(model, engine)


def _listed(noise: dict[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(noise.items()))


@functools.cache
def say_once(text: str) -> None:
    """Warns of what has not been warned of before."""
    _log.warning(text)
