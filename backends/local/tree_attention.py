"""Attention in which a token sees its own prefix only, though other branches stand between."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

_GROUPED = "kaarel_bet_grouped"


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


@contextmanager
def fastest_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within this block the model uses the attention kernel that is fastest with such masks.

    torch's fused kernel for CPUs takes two to four times as long as three plain operations in
    bfloat16 at a training step's sizes (docs/prefix-engine.md); anywhere else it is left alone, as are
    models that ask for a kernel of their own.
    """
    config = model.config.get_text_config()
    before = config._attn_implementation
    if before == "sdpa" and model.device.type == "cpu" and model.dtype == torch.bfloat16:
        config._attn_implementation = _GROUPED
    try:
        yield
    finally:
        config._attn_implementation = before


def _grouped_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,  # noqa: ANN401 - transformers passes what other kernels take
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention, the queries that share a key head (GQA) in one multiplication.

    query (batch, heads, queries, width), key and value (batch, key heads, keys, width); returns
    (batch, queries, heads, width), as transformers' attention functions do.
    """
    batch, heads, n_queries, width = query.shape
    key_heads, n_keys = key.shape[1], key.shape[2]
    together = (batch, key_heads, heads // key_heads * n_queries, width)
    scores = (query * scaling).reshape(together) @ key.transpose(2, 3)
    scores = scores.view(batch, heads, n_queries, n_keys) + attention_mask
    weights = torch.dropout(torch.softmax(scores, dim=-1), dropout, train=dropout > 0)
    mixed = weights.view(*together[:3], n_keys) @ value
    return mixed.view(batch, heads, n_queries, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(_GROUPED, _grouped_attention)
