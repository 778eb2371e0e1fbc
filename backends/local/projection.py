"""The projection to the vocabulary, only at the positions whose logits are needed.

It is a quarter of a small model's arithmetic and most of its memory: one float32 logit vector of a
50,000-token vocabulary is 200 kB a position.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from backends.errors import ModelError
from backends.local.sequences import TokenScore


@contextmanager
def selecting(model: PreTrainedModel, rows: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """Within this block the model's logits have shape (1, n, vocabulary), for n chosen positions.

    `rows` and `columns`, both of shape (n,), index the batch and the sequence. The decoder's hidden
    states are replaced on their way to the head, so that whatever an architecture does there
    (scaling, soft-capping) is done by its own code.
    """

    def select(_module: torch.nn.Module, _args: Any, output: Any) -> Any:  # noqa: ANN401
        output.last_hidden_state = output.last_hidden_state[rows, columns].unsqueeze(0)
        return output

    decoder = model.get_decoder()
    if decoder is model:  # transformers misses Llama 4's
        decoder = model.get_submodule("model")
    handle = decoder.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def target_log_probabilities(
    logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Natural log-probabilities, float32, of `targets` (n,), each under a row of logits.

    `logits` has shape (m, vocabulary); `rows` (n,) says which of them predicts each target.
    """
    return torch.log_softmax(logits.float(), dim=-1)[rows, targets]


def scores_of(
    logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, top: int
) -> list[TokenScore]:
    """The same with the `top` likeliest tokens at each place, likeliest first.

    Raises:
        ModelError: as `checked`.
    """
    everything = torch.log_softmax(checked(logits).float(), dim=-1)
    values = everything[rows, targets].tolist()
    if not top:
        return [TokenScore(value) for value in values]
    likeliest = everything.topk(min(top, everything.shape[-1]), dim=-1)
    tokens, their_values = likeliest.indices.tolist(), likeliest.values.tolist()
    tops = [tuple(zip(*row, strict=True)) for row in zip(tokens, their_values, strict=True)]
    return [TokenScore(value, tops[row]) for value, row in zip(values, rows.tolist(), strict=True)]


def checked(logits: torch.Tensor) -> torch.Tensor:
    """The same logits (..., vocabulary), which give probabilities.

    Raises:
        ModelError: they do not: the model computes NaN or infinity.
    """
    if not logits.amax(dim=-1).isfinite().all():
        raise ModelError(
            "the model computes NaN in place of probabilities: weights of local.model or of its "
            "adapter are damaged, or too large for its dtype (local.scoring, local.generation)"
        )
    return logits
