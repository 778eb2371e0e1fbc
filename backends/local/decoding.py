"""Texts token by token: a batch of rows over one cache of keys and values.

Rows come, fork and go while the others continue: the cache is padded on the left, so that a shorter row
joins by more padding and what all rows pad is cut off.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from backends.local.detokenising import TokenBytes
from backends.local.engine import Engine
from backends.local.long_rope import longest_short_text, rotated
from backends.local.prefix_engine import cache_keyword
from backends.local.prefix_tree import Integers
from backends.local.projection import checked
from backends.local.sequences import KeysAndValues, Prefilled
from backends.local.tree_attention import attention_masks, fastest_attention

MAX_ROWS = 64
"""Texts under way at a time. Beyond it a step hardly gains."""
MAX_POSITIONS = 2**17
"""Tokens that all texts under way may come to, prompts included: what bounds the caches' memory."""


@dataclass(frozen=True)
class Vocabulary:
    """What tokens mean to a decoder: their bytes, and which end a text."""

    token_bytes: TokenBytes
    ends: frozenset[int]


class Row(Protocol):
    """A text under way: tokens that follow a prompt."""

    @property
    def prompt(self) -> Sequence[int]:
        """What is continued."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens so far."""
        ...


AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True)
class Decoder:
    """A model, ready to continue texts."""

    model: PreTrainedModel
    engine: Engine
    vocabulary: Vocabulary
    batch_tokens: int

    @torch.inference_mode()
    def start(
        self, groups: Sequence[Sequence[AnyRow]]
    ) -> Iterator[list[tuple[int, "Batch[AnyRow]"]]]:
        """Computes rows, a common prefix once; yields (index of the group, its rows) as ready.

        The rows of a group have the same prompt and tokens.

        Raises:
            DeviceMemoryError: as `Engine.prefill`.
        """
        tokens = [[*rows[0].prompt, *rows[0].tokens] for rows in groups]
        for ready in self.engine.prefill(tokens, self.batch_tokens):
            yield [
                (index, self._batch(groups[index], len(tokens[index]), prefilled))
                for index, prefilled in ready
            ]

    def _batch(self, rows: Sequence[AnyRow], length: int, prefilled: Prefilled) -> "Batch[AnyRow]":
        n = len(rows)
        layers = prefilled.layers
        if layers is not None:
            layers = [_map(layer, lambda t: t.expand(n, -1, -1, -1)) for layer in layers]
        lengths = np.full(n, length)
        return Batch(self, list(rows), lengths, prefilled.logits.expand(n, -1), layers)


class Batch(Generic[AnyRow]):
    """Rows that are continued together."""

    def __init__(
        self,
        decoder: Decoder,
        rows: list[AnyRow],
        lengths: Integers,
        logits: torch.Tensor,
        layers: Sequence[KeysAndValues] | None,
    ) -> None:
        """Rows of which `lengths` (rows,) positions are computed, `logits` (rows, vocabulary) being next.

        `layers` are as wide as the longest row and padded on the left; None runs without a cache.
        """
        self.rows = rows
        self._decoder = decoder
        self._lengths = lengths
        self._logits = logits
        self._cache = None if layers is None else DynamicCache(layers)

    @classmethod
    @torch.inference_mode()
    def joined(cls, batches: Sequence["Batch[AnyRow]"]) -> "Batch[AnyRow]":
        """All of their rows in one; each must be of the same decoder and have its `logits`."""
        if len(batches) == 1:
            return batches[0]
        width = max(batch._width for batch in batches)
        parts = [batch._layers for batch in batches]
        layers = None
        if all(part is not None for part in parts):
            of_layers = zip(*(part for part in parts if part is not None), strict=True)
            layers = [
                (_stacked([k for k, _ in layer], width), _stacked([v for _, v in layer], width))
                for layer in of_layers
            ]
        return cls(
            batches[0]._decoder,
            [row for batch in batches for row in batch.rows],
            np.concatenate([batch._lengths for batch in batches]),
            torch.cat([batch._logits for batch in batches]),
            layers,
        )

    @property
    def logits(self) -> torch.Tensor:
        """What each row predicts next: (rows, vocabulary), float32. Raises as `checked`."""
        return checked(self._logits).float()

    def keep(self, places: list[int]) -> None:
        """Drops all rows but those at these places."""
        self.go_on_with([(place, self.rows[place]) for place in places])

    @torch.inference_mode()
    def go_on_with(self, rows: Sequence[tuple[int, AnyRow]]) -> None:
        """Replaces the rows by others, each with the place of the row that it is or that it continues.

        A place may come several times or never: rows fork and end.
        """
        places = [place for place, _ in rows]
        if places != list(range(len(self.rows))):
            kept = self._part(places)
            self._lengths, self._logits, self._cache = kept._lengths, kept._logits, kept._cache
        self.rows = [row for _, row in rows]

    @torch.inference_mode()
    def advance(self) -> None:
        """Computes what follows each row's last token, which must be its only new one.

        Raises:
            RuntimeError: out of memory (`is_out_of_memory`); the batch is then as it was before.
        """
        if not self.rows:
            return
        limit = longest_short_text(self._decoder.model)
        crossing = [i for i, n in enumerate(self._lengths) if n == limit]
        if crossing and self._cache is not None:
            self._cross(crossing)
            return
        width = self._width
        try:
            self._logits = (
                self._recomputed() if self._cache is None else self._continued(self._cache)
            )
        except RuntimeError:
            if (
                self._layers is not None
            ):  # the first layers may have been given the new token already
                self._cache = DynamicCache(
                    [_map(layer, lambda t: t[:, :, :width]) for layer in self._layers]
                )
            raise
        self._lengths = self._lengths + 1

    @torch.inference_mode()
    def halves(self) -> "list[Batch[AnyRow]]":
        """The rows in two batches."""
        middle = len(self.rows) // 2
        parts = list(range(middle)), list(range(middle, len(self.rows)))
        return [self._part(places) for places in parts]

    @property
    def _width(self) -> int:
        return int(self._lengths.max())

    @property
    def _layers(self) -> list[KeysAndValues] | None:
        return None if self._cache is None else [(keys, values) for keys, values, _ in self._cache]

    def _part(self, places: list[int]) -> "Batch[AnyRow]":
        rows, lengths = [self.rows[place] for place in places], self._lengths[places]
        index = torch.tensor(places, dtype=torch.long, device=self._logits.device)
        layers = self._layers
        if layers is not None:
            width = int(lengths.max(initial=0))
            layers = [_map(layer, lambda t: t[index, :, t.shape[2] - width :]) for layer in layers]
        return Batch(self._decoder, rows, lengths, self._logits[index], layers)

    def _continued(self, cache: DynamicCache) -> torch.Tensor:
        """The logits after each row's last token, which the cache is given."""
        model, width = self._decoder.model, self._width
        columns = np.arange(width + 1)
        visible = columns >= (width - self._lengths)[:, None, None]
        like = torch.empty(0, dtype=model.dtype, device=model.device)
        masks = attention_masks(model.config.get_text_config(), visible, width - columns, like)
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=model.device)
        with fastest_attention(model, visible), rotated(model, (self._lengths + 1).tolist()):
            return model(
                input_ids=last,
                position_ids=torch.from_numpy(self._lengths)[:, None].to(model.device),
                attention_mask=masks,
                use_cache=True,
                **{cache_keyword(model): cache},
            ).logits[:, 0]

    def _cross(self, crossing: list[int]) -> None:
        """The same where rows become long texts, all of whose keys are rotated otherwise."""
        others = [i for i in range(len(self.rows)) if i not in crossing]
        begun = self._decoder.start([[self.rows[i]] for i in crossing])
        started = dict(item for ready in begun for item in ready)
        batches = [started[i] for i in range(len(crossing))]
        if others:
            rest = self._part(others)
            rest.advance()
            batches.append(rest)
        now = Batch.joined(batches)
        places = {row: place for place, row in enumerate([*crossing, *others])}
        now.go_on_with([(places[i], row) for i, row in enumerate(self.rows)])
        self._lengths, self._logits, self._cache = now._lengths, now._logits, now._cache

    def _recomputed(self) -> torch.Tensor:
        decoder = self._decoder
        whole = [[*row.prompt, *row.tokens] for row in self.rows]
        ready = dict(
            item for part in decoder.engine.prefill(whole, decoder.batch_tokens) for item in part
        )
        return torch.stack([ready[i].logits for i in range(len(whole))])


def _map(layer: KeysAndValues, change: Callable[[torch.Tensor], torch.Tensor]) -> KeysAndValues:
    keys, values = layer
    return None if keys is None else change(keys), None if values is None else change(values)


def _stacked(tensors: list[torch.Tensor | None], width: int) -> torch.Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    if not present:
        return None
    padded = [torch.nn.functional.pad(t, (0, 0, width - t.shape[2], 0)) for t in present]
    return torch.cat(padded)
