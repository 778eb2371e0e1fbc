"""Attention in blocks against torch's own, over trees whose queries see scattered keys."""

import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backends.local.prefix_tree import build_prefix_tree
from backends.local.sequences import TokenSequence
from backends.local.tree_attention import attention, blocks_of

HEADS, KEY_HEADS, WIDTH = 6, 2, 8


def mask_of_a_tree(draw: random.Random, n: int, n_cached: int) -> NDArray[np.bool_]:
    """What the nodes after the first `n_cached` see, in a tree of n sequences with a common stem."""
    stem = draw.choices(range(1000), k=60)
    tokens = [
        stem[: draw.randrange(61)] + draw.choices(range(1000), k=draw.randrange(2, 90))
        for _ in range(n)
    ]
    tree = build_prefix_tree([TokenSequence(t, [len(t) - 1]) for t in tokens])
    nodes = np.arange(len(tree))
    return tree.attends(nodes[n_cached:], nodes)


@pytest.mark.parametrize("n_cached", [0, 40])
def test_blocks_give_what_torchs_attention_gives(n_cached: int) -> None:
    visible = mask_of_a_tree(random.Random(0), 12, n_cached)
    blocks = blocks_of(visible)
    assert any(isinstance(block.keys, torch.Tensor) for block in blocks)
    n_queries, n_keys = visible.shape
    torch.manual_seed(0)
    query = torch.randn(1, HEADS, n_queries, WIDTH, requires_grad=True)
    key, value = (torch.randn(1, KEY_HEADS, n_keys, WIDTH, requires_grad=True) for _ in range(2))
    seen = torch.from_numpy(visible)[None, None]
    added = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    inputs = query, key, value
    ours = attention(query * WIDTH**-0.5, key, value, added, blocks)
    theirs = torch.nn.functional.scaled_dot_product_attention(*inputs, seen, enable_gqa=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(ours)
    for mine, its in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)


def test_blocks_leave_out_what_other_branches_hold() -> None:
    """Unrelated sequences: what is computed grows with their number, not with its square."""
    computed = []
    for n in (4, 16):
        tokens = [[i * 1000 + j for j in range(201)] for i in range(n)]
        tree = build_prefix_tree([TokenSequence(t, [200]) for t in tokens])
        nodes = np.arange(len(tree))
        visible = tree.attends(nodes, nodes)
        column = torch.arange(len(tree))
        computed.append(
            sum(
                (block.queries.stop - block.queries.start) * len(block.of_keys(column, 0))
                for block in blocks_of(visible)
            )
        )
    assert computed[1] <= 4.2 * computed[0]
