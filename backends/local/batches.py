"""Which examples each optimiser step sees, a pure function of the seed and the epoch."""

from collections.abc import Sequence

import torch

from backends.local.sequences import Learned
from backends.local.settings import Grouping


def epoch_batches(
    examples: Sequence[Learned], batch_size: int, group_by: Grouping, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of an epoch, as indices of examples; each example is in one of them.

    Ungrouped, they are cut from a fresh permutation. Grouped, examples that are alike (in their first
    tokens, or in length) share a batch, which is less to compute, and the batches are permuted.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(examples), generator=generator).tolist()
    if group_by == "prefix":
        order.sort(key=lambda i: examples[i].tokens)
    elif group_by == "length":
        order.sort(key=lambda i: len(examples[i].tokens))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if group_by == "none":
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
