"""Attention in which a token sees its own prefix only, though other branches stand between."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

_OURS = "kaarel_bet"
_QUERIES = 128
"""Queries in a block: with fewer, fewer keys are multiplied in vain, in more operations."""
_ROWS = 16
"""What numbers of rows are filled up to a multiple of, so that shapes come again: oneDNN, which multiplies
in bfloat16, compiles each product of a new shape, which takes 1 to 10 ms (with AMX, whose tiles have 16
rows) and memory that is never given back."""


def rows_multiple(model: PreTrainedModel) -> int:
    """The multiple to which numbers of rows are best filled up before this model multiplies them."""
    compiles = model.dtype == torch.bfloat16 and model.device.type == "cpu"
    return _ROWS if compiles else 1


def attention_masks(
    config: PreTrainedConfig,
    visible: NDArray[np.bool_],
    distance: NDArray[np.int64],
    like: torch.Tensor,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The masks as transformers' decoders take them ready made: (rows, 1, queries, keys), added to scores.

    `visible` (rows, queries, keys) and `distance`, which broadcasts to it, say which keys a query sees
    and how many positions they lie apart; `like` gives dtype and device. Decoders whose layers
    differ take one mask for each kind of layer.
    """
    full = _additive(visible, like)
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if window is None or (kinds and "sliding_attention" not in kinds):
        return full
    windowed = _additive(visible & (distance < window), like)
    return {"full_attention": full, "sliding_attention": windowed} if kinds else windowed


def _additive(visible: NDArray[np.bool_], like: torch.Tensor) -> torch.Tensor:
    hidden = torch.from_numpy(~visible).to(like.device)
    mask = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(hidden, -torch.inf)[:, None]


@dataclass(frozen=True)
class Block:
    """Neighbouring queries, and all the keys that any of them sees; with some more, for their number."""

    queries: slice
    keys: slice | torch.Tensor
    """Their columns; a slice where nothing unseen stands between them."""

    def of_keys(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        """What a tensor has for these keys along this dimension."""
        if isinstance(self.keys, torch.Tensor):
            return tensor.index_select(dim, self.keys)
        return tensor.narrow(dim, self.keys.start, self.keys.stop - self.keys.start)


def blocks_of(visible: NDArray[np.bool_]) -> list[Block]:
    """Blocks of at most 128 queries, of a (queries, keys) mask in which every query sees a key."""
    blocks = []
    for start in range(0, len(visible), _QUERIES):
        queries = slice(start, min(start + _QUERIES, len(visible)))
        seen = _filled_up(np.logical_or.reduce(visible[queries]))
        first, end = int(seen[0]), int(seen[-1]) + 1
        keys = slice(first, end) if len(seen) == end - first else torch.from_numpy(seen)
        blocks.append(Block(queries, keys))
    return blocks


def _filled_up(seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of what is seen, and as many of their neighbours as make a whole number of them."""
    places, others = np.flatnonzero(seen), np.flatnonzero(~seen)
    follow = others > places[0]
    nearest = np.concatenate([others[follow], others[~follow][::-1]])
    return np.sort(np.concatenate([places, nearest[: -len(places) % _ROWS]]))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    blocks: Sequence[Block],
    dropout: float = 0.0,
) -> torch.Tensor:
    """Dot-product attention that leaves out what a whole block of queries does not see.

    query (batch, heads, queries, width), scaled; key and value (batch, key heads, keys, width);
    mask (batch, 1, queries, keys), added. Returns (batch, heads, queries, width).
    """
    mixed = [
        _dense_attention(
            query[:, :, block.queries],
            block.of_keys(key, 2),
            block.of_keys(value, 2),
            block.of_keys(mask[:, :, block.queries], 3),
            dropout,
        )
        for block in blocks
    ]
    return torch.cat(mixed, dim=2)


def _dense_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, dropout: float
) -> torch.Tensor:
    """The same; queries that share a key head (GQA) are in one multiplication."""
    batch, heads, n_queries, width = query.shape
    key_heads, n_keys = key.shape[1], key.shape[2]
    together = (batch, key_heads, heads // key_heads * n_queries)
    scores = query.reshape(*together, width) @ key.transpose(2, 3)
    scores = scores.view(batch, heads, n_queries, n_keys) + mask
    weights = torch.dropout(torch.softmax(scores, dim=-1), dropout, train=dropout > 0)
    return (weights.view(*together, n_keys) @ value).view(batch, heads, n_queries, -1)


_blocks: ContextVar[Sequence[Block] | None] = ContextVar("blocks")


@contextmanager
def fastest_attention(model: PreTrainedModel, visible: NDArray[np.bool_]) -> Iterator[None]:
    """While this is entered, the model uses the attention that is fastest with these masks.

    On CPUs, torch's fused kernel takes two to four times as long as three plain operations in
    bfloat16 at a training step's sizes (docs/prefix-engine.md), and computes what is hidden as well;
    in float32, and for one query a row, it is the faster one if it is told which heads share keys,
    which older versions of transformers copy for each head. Anywhere else attention is left alone, as are
    models that ask for a kernel of their own. `visible` is as for `attention_masks`.
    """
    config = model.config.get_text_config()
    before = config._attn_implementation
    in_blocks = model.dtype == torch.bfloat16 and visible.shape[1] > 1
    of_cpu = before == "sdpa" and model.device.type == "cpu"
    if not of_cpu or not (in_blocks or not torch.is_grad_enabled()):
        yield
        return
    with _using(config, _OURS, blocks_of(np.logical_or.reduce(visible)) if in_blocks else None):
        yield


def attention_twice(
    model: PreTrainedModel,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For a layer that is computed now, and again when `fastest_attention` is left: the same attention."""
    config = model.config.get_text_config()
    return nullcontext(), _using(config, config._attn_implementation, _blocks.get(None))


@contextmanager
def _using(
    config: PreTrainedConfig, implementation: str | None, blocks: Sequence[Block] | None
) -> Iterator[None]:
    before, token = config._attn_implementation, _blocks.set(blocks)
    try:
        config._attn_implementation = implementation
        yield
    finally:
        _blocks.reset(token)
        config._attn_implementation = before


def _as_transformers_call_it(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,  # noqa: ANN401 - transformers passes what other kernels take
) -> tuple[torch.Tensor, None]:
    blocks = _blocks.get()
    if blocks is not None:
        mixed = attention(query * scaling, key, value, attention_mask, blocks, dropout)
    else:
        batch, heads, n_queries, width = query.shape
        if n_queries == 1 and query.dtype == torch.float32:
            # Heads that share keys (GQA) stand as queries of one head, so that those keys are read once. It
            # saves a fifth of a decoding step's attention; in bfloat16 it saves nothing.
            query = query.view(batch, key.shape[1], -1, width)
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attention_mask,
            dropout,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        ).reshape(batch, heads, n_queries, -1)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(_OURS, _as_transformers_call_it)
