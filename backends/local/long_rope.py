"""LongRoPE (https://arxiv.org/abs/2402.13753; Phi-3 and later): a text alone decides how it is rotated.

Such a model has two sets of factors, one for texts of up to `original_max_position_embeddings` tokens and
one for longer ones. transformers chooses by the highest position of a call, so that a short text's results
would depend on what is computed with it, and a long text's on where it is divided. (Its dynamic NTK scaling
does so beyond `max_position_embeddings` alone, where no text of ours goes.)
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.sequences import Prefilled, TokenScore, TokenSequence

_Item = TypeVar("_Item")


def longest_short_text(model: PreTrainedModel) -> int | None:
    """How many tokens a text may have to be given the short factors; None where there is one set."""
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    # Models whose layers differ have parameters for each kind of layer.
    for of_kind in (parameters, *parameters.values()):
        if isinstance(of_kind, dict) and of_kind.get("rope_type") == "longrope":
            return of_kind["original_max_position_embeddings"]
    return None


@contextmanager
def rotated(model: PreTrainedModel, lengths: Sequence[int]) -> Iterator[None]:
    """Within this block each row of a call is rotated as a text of that many tokens is.

    One length is for all rows.
    """
    limit = longest_short_text(model)
    if limit is None or max(lengths) <= limit:  # then no position asks for the long factors
        yield
        return
    is_long = torch.tensor([length > limit for length in lengths], device=model.device)
    with ExitStack() as restored:
        for module in model.modules():
            if "longrope" in _rope_types(module):
                own = module.forward
                module.forward = _by_row(own, is_long, limit)
                restored.callback(module.__dict__.pop, "forward")
        yield


def _rope_types(module: torch.nn.Module) -> tuple[str, ...]:
    kinds = getattr(module, "rope_type", ())
    return (kinds,) if isinstance(kinds, str) else tuple(dict(kinds).values())


def _by_row(forward: Any, is_long: torch.Tensor, limit: int) -> Any:  # noqa: ANN401 - a module's forward
    def both(
        x: torch.Tensor,
        position_ids: torch.Tensor,
        *others: Any,  # noqa: ANN401
        **options: Any,  # noqa: ANN401
    ) -> tuple[torch.Tensor, ...]:
        # A position more, which only the choice of factors sees.
        beyond = position_ids.new_full((*position_ids.shape[:-1], 1), limit)
        with_it = forward(x, torch.cat([position_ids, beyond], dim=-1), *others, **options)
        long = tuple(table[..., :-1, :] for table in with_it)
        if is_long.all():
            return long
        short = forward(x, position_ids.clamp(max=limit - 1), *others, **options)
        rows = is_long[:, None, None]
        return tuple(torch.where(rows, *pair) for pair in zip(long, short, strict=True))

    return both


class LongRopeEngine:
    """Another engine, asked for short and for long texts apart."""

    def __init__(self, model: PreTrainedModel, engine: PlainEngine | PrefixEngine) -> None:
        self._model = model
        self._engine = engine
        self.shares_prefixes = engine.shares_prefixes

    def log_probabilities(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """As `Engine.log_probabilities`."""
        of_sequences: dict[int, torch.Tensor] = {}
        for indices, length in self._kinds([s.targets[-1] for s in sequences]):
            chosen = [sequences[i] for i in indices]
            with rotated(self._model, [length]):
                values = self._engine.log_probabilities(chosen)
            of_sequences |= zip(
                indices, values.split([len(s.targets) for s in chosen]), strict=True
            )
        return torch.cat([of_sequences[i] for i in range(len(sequences))])

    def stream(
        self, sequences: Sequence[TokenSequence], batch_tokens: int, top: int = 0
    ) -> Iterator[list[tuple[int, list[TokenScore]]]]:
        """As `Engine.stream`."""
        for indices, length in self._kinds([s.targets[-1] for s in sequences]):
            chosen = [sequences[i] for i in indices]
            yield from self._each(self._engine.stream(chosen, batch_tokens, top), indices, length)

    def prefill(
        self, prompts: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[list[tuple[int, Prefilled]]]:
        """As `Engine.prefill`."""
        for indices, length in self._kinds([len(prompt) for prompt in prompts]):
            chosen = [prompts[i] for i in indices]
            yield from self._each(self._engine.prefill(chosen, batch_tokens), indices, length)

    def _kinds(self, lengths: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        """The places of the short texts and of the long ones, each with the greatest length."""
        limit = longest_short_text(self._model) or 0
        for is_long in (False, True):
            places = [i for i, length in enumerate(lengths) if (length > limit) == is_long]
            if places:
                yield places, max(lengths[i] for i in places)

    def _each(
        self, ready: Iterator[list[tuple[int, _Item]]], indices: list[int], length: int
    ) -> Iterator[list[tuple[int, _Item]]]:
        while True:
            # Not around the whole: between two pieces the model may be asked something else.
            with rotated(self._model, [length]):
                items = next(ready, None)
            if items is None:
                return
            yield [(indices[place], item) for place, item in items]
