"""Texts token by token: a batch of rows over one cache of keys and values.

Rows come, fork and go while the others continue (row_cache.py).
"""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from backends.local.detokenising import TokenBytes
from backends.local.engine import Engine
from backends.local.long_rope import longest_short_text, rotated
from backends.local.prefix_engine import cache_keyword
from backends.local.projection import checked
from backends.local.row_cache import RowCache
from backends.local.sequences import Prefilled
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
                (index, Batch(self, groups[index], len(tokens[index]), prefilled))
                for index, prefilled in ready
            ]


class Batch(Generic[AnyRow]):
    """Rows that are continued together.

    The cache has the first of them. Those that have come since are given their places in it when they
    are continued: what ends with its first token never takes one.
    """

    def __init__(
        self, decoder: Decoder, rows: Sequence[AnyRow], length: int, prefilled: Prefilled
    ) -> None:
        """Rows of which the same `length` positions are computed."""
        self.rows = list(rows)
        self._decoder = decoder
        self._lengths = np.full(len(rows), length)
        self._logits = prefilled.logits.expand(len(rows), -1)
        self._cache: RowCache | None = None
        self._coming = [prefilled] * len(rows)

    @classmethod
    @torch.inference_mode()
    def joined(cls, batches: Sequence["Batch[AnyRow]"]) -> "Batch[AnyRow]":
        """All of their rows in one, which takes the place of the first; the others have just started.

        Each must be of the same decoder and have its `logits`.
        """
        if len(batches) == 1:
            return batches[0]
        batch = copy.copy(batches[0])
        batch.rows = [row for each in batches for row in each.rows]
        batch._lengths = np.concatenate([each._lengths for each in batches])
        batch._logits = torch.cat([each._logits for each in batches])
        batch._coming = [prefilled for each in batches for prefilled in each._coming]
        return batch

    @property
    def logits(self) -> torch.Tensor:
        """What each row predicts next: (rows, vocabulary), float32. Raises as `checked`."""
        return checked(self._logits).float()

    @torch.inference_mode()
    def keep(self, places: Sequence[int]) -> None:
        """Drops all rows but those at these places; the others may change their order."""
        if len(places) == len(self.rows):
            return
        n = len(self.rows) - len(self._coming)
        cached, coming = [p for p in places if p < n], [p for p in places if p >= n]
        # The last move to where others leave: few are copied.
        holes = sorted(set(range(len(cached))) - set(cached))
        moved = iter(holes)
        order = list(range(len(cached)))
        for place in cached:
            if place >= len(cached):
                order[next(moved)] = place
        self._coming = [self._coming[place - n] for place in coming]
        if self._cache is not None:
            self._cache.select(order)
        self._reorder(order + coming)

    @torch.inference_mode()
    def go_on_with(self, rows: Sequence[tuple[int, AnyRow]]) -> None:
        """Replaces the rows by others, each with the place of the row that it is or that it continues.

        A place may come several times or never: rows fork and end.
        """
        places = [place for place, _ in rows]
        if places != list(range(len(self.rows))):
            self._settle()
            if self._cache is not None:
                self._cache.select(places)
            else:
                self._coming = [self._coming[place] for place in places]
            self._reorder(places)
        self.rows = [row for _, row in rows]

    @torch.inference_mode()
    def advance(self) -> None:
        """Computes what follows each row's last token, which must be its only new one.

        Raises:
            RuntimeError: out of memory (`is_out_of_memory`); the batch is then as it was before.
        """
        if not self.rows:
            return
        self._settle()
        anew = np.arange(len(self.rows))
        logits = self._logits
        if self._cache is not None:
            logits = self._continued(self._cache)
            # All keys of a text that becomes a long one are rotated otherwise.
            anew = np.flatnonzero(self._lengths == longest_short_text(self._decoder.model))
        if len(anew):
            logits = self._computed_anew(anew.tolist(), logits)
        self._logits = logits
        self._lengths = self._lengths + 1

    @torch.inference_mode()
    def halves(self) -> "list[Batch[AnyRow]]":
        """The rows in two batches."""
        middle = len(self.rows) // 2
        parts = list(range(middle)), list(range(middle, len(self.rows)))
        return [self._part(places) for places in parts]

    def _part(self, places: list[int]) -> "Batch[AnyRow]":
        n = len(self.rows) - len(self._coming)
        part = copy.copy(self)
        part._coming = [self._coming[place - n] for place in places if place >= n]
        if self._cache is not None:
            part._cache = self._cache.part([place for place in places if place < n])
        part._reorder(places)
        return part

    def _reorder(self, places: list[int]) -> None:
        self.rows = [self.rows[place] for place in places]
        self._lengths = self._lengths[places]
        index = torch.tensor(places, dtype=torch.long, device=self._logits.device)
        self._logits = self._logits[index]

    def _settle(self) -> None:
        """Makes the cache have all rows, with room for a token more; where caches are kept at all."""
        coming = [prefilled.layers for prefilled in self._coming]
        if any(layers is None for layers in coming):
            return
        if self._cache is not None:
            self._cache.fit(len(self.rows), int(self._lengths.max(initial=0)) + 1)
        start = len(self.rows) - len(coming)
        for get, same in itertools.groupby(coming):  # the answers to one prompt
            assert get is not None
            layers, stop = get(), start + len(list(same))
            if self._cache is None:
                self._cache = RowCache(layers)
                self._cache.fit(len(self.rows), int(self._lengths.max()) + 1)
            self._cache.write(slice(start, stop), layers)
            start = stop
        self._coming = []

    def _continued(self, cache: RowCache) -> torch.Tensor:
        """The logits after each row's last token, which the cache is given."""
        model = self._decoder.model
        seen = cache.stand(self._lengths, model.device)
        ends = self._lengths[:, None, None]
        columns = np.arange(seen)
        visible = columns <= ends
        like = torch.empty(0, dtype=model.dtype, device=model.device)
        masks = attention_masks(model.config.get_text_config(), visible, ends - columns, like)
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=model.device)
        with fastest_attention(model, visible), rotated(model, (self._lengths + 1).tolist()):
            return model(
                input_ids=last,
                position_ids=torch.from_numpy(self._lengths)[:, None].to(model.device),
                attention_mask=masks,
                use_cache=True,
                **{cache_keyword(model): cache},
            ).logits[:, 0]

    def _computed_anew(self, places: list[int], others: torch.Tensor) -> torch.Tensor:
        """The logits, of these rows after computing their whole texts, which the cache is given."""
        whole = [[*self.rows[place].prompt, *self.rows[place].tokens] for place in places]
        logits = list(others)
        for ready in self._decoder.engine.prefill(whole, self._decoder.batch_tokens):
            for index, prefilled in ready:
                place = places[index]
                logits[place] = prefilled.logits
                if self._cache is not None and prefilled.layers is not None:
                    self._cache.write(slice(place, place + 1), prefilled.layers())
        return torch.stack(logits)
