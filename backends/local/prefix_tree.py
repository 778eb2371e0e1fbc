"""The prefix tree (trie) of a set of token sequences: every distinct prefix is one node."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backends.local.sequences import TokenSequence

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PrefixTree:
    """A forest of n nodes in depth-first order, a node for each distinct prefix of the sequences.

    Where it is `filled_up`, nodes that are no prefix of theirs stand at its end.
    In that order a node's ancestors precede it and its descendants are those up to `ends[node]`, so
    that any stretch of nodes needs, of all nodes before it, only the ancestors of its first one.
    """

    tokens: Integers
    """(n,): the last token of each prefix."""
    depths: Integers
    """(n,): the position of that token in every sequence that has it."""
    ends: Integers
    """(n,): one past the last descendant of each node."""
    predictors: Integers
    """(targets,): the node that predicts each target of the sequences, one after the other."""

    def __len__(self) -> int:
        return len(self.tokens)

    def attends(self, queries: Integers, keys: Integers) -> NDArray[np.bool_]:
        """(queries, keys): whether the key is the query's ancestor or the query itself."""
        rows = queries[:, None]
        return (keys <= rows) & (rows < self.ends[keys])

    def filled_up(self, multiple: int) -> "PrefixTree":
        """With nodes that stand alone and predict nothing, so that its size is a multiple.

        They are as the first one is: another token may be one that models can't compute (Gemma 3n gives
        padding a state of zeros, through whose norm the gradient is NaN).
        """
        missing = -len(self) % multiple
        return replace(
            self,
            tokens=np.concatenate([self.tokens, np.repeat(self.tokens[:1], missing)]),
            depths=np.concatenate([self.depths, np.repeat(self.depths[:1], missing)]),
            ends=np.concatenate([self.ends, len(self) + 1 + np.arange(missing)]),
        )


def build_prefix_tree(sequences: Sequence[TokenSequence]) -> PrefixTree:
    """The tree of all tokens that some target is predicted from; what follows the last is left out."""
    used = [sequence.tokens[: sequence.targets[-1]] for sequence in sequences]
    tokens: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    predictors: list[list[int]] = [[] for _ in sequences]
    previous: list[int] = []
    path: list[int] = []  # the nodes of `previous`
    # Sorted, sequences with a common prefix are neighbours.
    for index in sorted(range(len(sequences)), key=used.__getitem__):
        shared = _common_prefix(used[index], previous)
        for node in path[shared:]:
            ends[node] = len(tokens)
        new = used[index][shared:]
        path = path[:shared] + list(range(len(tokens), len(tokens) + len(new)))
        tokens += new
        depths += range(shared, shared + len(new))
        ends += [0] * len(new)
        predictors[index] = [path[position - 1] for position in sequences[index].targets]
        previous = used[index]
    for node in path:
        ends[node] = len(tokens)
    flat = list(itertools.chain.from_iterable(predictors))
    return PrefixTree(np.array(tokens), np.array(depths), np.array(ends), np.array(flat))


def side_by_side(trees: Sequence[PrefixTree]) -> PrefixTree:
    """All of them as one forest; no prefix is shared between two, so that no node sees another tree."""
    if len(trees) == 1:
        return trees[0]
    starts = list(itertools.accumulate((len(tree) for tree in trees), initial=0))
    return PrefixTree(
        np.concatenate([tree.tokens for tree in trees]),
        np.concatenate([tree.depths for tree in trees]),
        np.concatenate([tree.ends + start for tree, start in zip(trees, starts, strict=False)]),
        np.concatenate([tree.predictors + n for tree, n in zip(trees, starts, strict=False)]),
    )


def tree_size(sequences: Sequence[TokenSequence]) -> int:
    """How many nodes the tree would have."""
    used = sorted(sequence.tokens[: sequence.targets[-1]] for sequence in sequences)
    return sum(len(new) - _common_prefix(new, old) for old, new in itertools.pairwise([[], *used]))


def _common_prefix(one: list[int], other: list[int]) -> int:
    length = min(len(one), len(other))
    # Whole slices compare in C; most neighbours share everything but their last few tokens.
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
