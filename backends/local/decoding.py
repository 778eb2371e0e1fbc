"""Answers token by token: a batch of rows over one cache of keys and values.

Rows come and go while the others continue: the cache is padded on the left, so that a shorter row joins
by more padding and what all rows pad is cut off.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from backends.local.detokenising import TextStream, TokenBytes
from backends.local.engine import Engine
from backends.local.prefix_tree import Integers
from backends.local.projection import scores_of
from backends.local.sampling import Draws, Sampling, choose_tokens
from backends.local.sequences import KeysAndValues, Prefilled, TokenScore
from backends.local.tree_attention import attention_masks, fastest_attention

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


@dataclass(frozen=True)
class Vocabulary:
    """What tokens mean to a decoder: their bytes, and which end an answer."""

    token_bytes: TokenBytes
    ends: frozenset[int]


@dataclass(frozen=True)
class Prompt:
    """What is to be continued, and with which of its `sampling.n` answers."""

    tokens: Sequence[int]
    sampling: Sampling
    samples: range


@dataclass(eq=False)
class Row:
    """One answer under way."""

    prompt: Sequence[int]
    sampling: Sampling
    sample: int
    vocabulary: Vocabulary
    tokens: list[int] = field(default_factory=list[int])
    cancelled: bool = False
    finish: Finish | None = None

    def __post_init__(self) -> None:
        self.draws = Draws(self.sampling.seed, self.sample)
        self._text = TextStream(self.vocabulary.token_bytes, self.sampling.stop)

    def take(self, token: int, score: TokenScore) -> GeneratedToken:
        """Goes on by a token."""
        self.tokens.append(token)
        is_end = token in self.vocabulary.ends
        text = "" if is_end else self._text.add(token)
        if is_end or self._text.stopped:
            self.finish = "stop"
        elif len(self.tokens) >= self.sampling.max_tokens:
            self.finish = "length"
        if self.finish:
            text += self._text.end()
        raw = b"" if is_end else self.vocabulary.token_bytes.of(token)
        return GeneratedToken(self.sample, token, score, raw, text, self.finish, is_end)


@dataclass(frozen=True)
class Decoder:
    """A model, ready to answer."""

    model: PreTrainedModel
    engine: Engine
    vocabulary: Vocabulary
    batch_tokens: int

    @torch.inference_mode()
    def start(self, prompts: Sequence[Prompt]) -> Iterator[list[tuple[int, "Batch"]]]:
        """Computes prompts, a common prefix once; yields (index of the prompt, its rows) as ready.

        Raises:
            DeviceMemoryError: as `Engine.prefill`.
        """
        tokens = [prompt.tokens for prompt in prompts]
        for ready in self.engine.prefill(tokens, self.batch_tokens):
            yield [(index, self._batch(prompts[index], prefilled)) for index, prefilled in ready]

    def _batch(self, prompt: Prompt, prefilled: Prefilled) -> "Batch":
        rows = [
            Row(prompt.tokens, prompt.sampling, sample, self.vocabulary)
            for sample in prompt.samples
        ]
        n = len(rows)
        layers = prefilled.layers
        if layers is not None:
            layers = [_map(layer, lambda t: t.expand(n, -1, -1, -1)) for layer in layers]
        lengths = np.full(n, len(prompt.tokens))
        return Batch(self, rows, lengths, prefilled.logits.expand(n, -1), layers)


class Batch:
    """Rows that are continued together."""

    def __init__(
        self,
        decoder: Decoder,
        rows: list[Row],
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
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """All of their rows in one; each must be of the same decoder and about to `choose`."""
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

    @torch.inference_mode()
    def choose(self) -> list[tuple[Row, GeneratedToken]]:
        """The next token of each row; rows that end with it leave, and so do cancelled ones."""
        self._keep([i for i, row in enumerate(self.rows) if not row.cancelled])
        if not self.rows:
            return []
        logits = self._logits.float()
        samplings = [row.sampling for row in self.rows]
        tokens = choose_tokens(logits, samplings, [row.draws for row in self.rows])
        scores = _scores(logits, tokens, samplings)
        made = [
            (row, row.take(token, score))
            for row, token, score in zip(self.rows, tokens, scores, strict=True)
        ]
        self._keep([i for i, row in enumerate(self.rows) if not row.finish])
        return made

    @torch.inference_mode()
    def advance(self) -> None:
        """Computes what follows the tokens chosen.

        Raises:
            RuntimeError: out of memory (`is_out_of_memory`); the batch is then as it was before.
        """
        if not self.rows:
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
    def halves(self) -> "list[Batch]":
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

    def _keep(self, places: list[int]) -> None:
        if len(places) == len(self.rows):
            return
        kept = self._part(places)
        self.rows, self._lengths = kept.rows, kept._lengths
        self._logits, self._cache = kept._logits, kept._cache

    def _part(self, places: list[int]) -> "Batch":
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
        with fastest_attention(model):
            return model(
                input_ids=last,
                position_ids=torch.from_numpy(self._lengths)[:, None].to(model.device),
                attention_mask=masks,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, 0]

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


def _scores(
    logits: torch.Tensor, tokens: Sequence[int], samplings: Sequence[Sampling]
) -> list[TokenScore]:
    each = torch.arange(len(tokens), device=logits.device)
    chosen = torch.tensor(tokens, device=logits.device)
    scores = scores_of(logits, each, chosen, max(sampling.top for sampling in samplings))
    return [
        TokenScore(score.log_probability, score.top[: sampling.top])
        for score, sampling in zip(scores, samplings, strict=True)
    ]
