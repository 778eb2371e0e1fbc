"""The prefix engine: a prefix that several sequences share is computed once.

Causal attention makes the hidden states of a shared prefix the same in every sequence that has it. So
the sequences are turned into a prefix tree, and the tree's nodes are laid out as one long sequence
in which each token has the position it has in its own sequences and sees its own prefix only. Losses
and scores are those of the plain sequences; gradients through a shared prefix add up by themselves.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from backends.local.memory import halving_when_out_of_memory
from backends.local.prefix_tree import Integers, PrefixTree, build_prefix_tree
from backends.local.projection import selecting, target_log_probabilities
from backends.local.sequences import TokenSequence
from backends.local.tree_attention import attention_masks, fastest_attention

_NO_NODES = np.empty(0, np.int64)


class PrefixEngine:
    """Runs a decoder for which `prefix_support.obstacle` finds none."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def log_probabilities(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """As `Engine.log_probabilities`, in one pass over the whole tree."""
        tree = build_prefix_tree(sequences)
        return _run(self._model, tree, np.arange(len(tree)), tree.predictors, _targets(sequences))

    def stream(
        self, sequences: Sequence[TokenSequence], batch_tokens: int
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """As `Engine.stream`: the tree in stretches of `batch_tokens` nodes.

        Between two stretches the keys and values of one path are kept, so the memory needed does not
        grow with the number of sequences.
        """
        walk = _Walk(self._model, sequences)
        for start in range(0, walk.length, batch_tokens):
            stretch = range(start, min(start + batch_tokens, walk.length))
            yield from halving_when_out_of_memory(walk.advance, stretch)


@dataclass(frozen=True)
class _Path:
    """Some nodes and, for each layer, their keys and values: (1, key heads, nodes, width) both.

    A layer that uses another's has none of its own.
    """

    nodes: Integers
    layers: list[tuple[torch.Tensor | None, torch.Tensor | None]]


def _at(tensor: torch.Tensor | None, index: torch.Tensor) -> torch.Tensor | None:
    return None if tensor is None else tensor[:, :, index]


class _Walk:
    """One pass over the sequences' tree in depth-first order, without gradients."""

    def __init__(self, model: PreTrainedModel, sequences: Sequence[TokenSequence]) -> None:
        self._model = model
        self._tree = build_prefix_tree(sequences)
        self._targets = _targets(sequences)
        self._by_node = np.argsort(self._tree.predictors, kind="stable")
        self._predictors_in_order = self._tree.predictors[self._by_node]
        self._values = np.zeros(len(self._targets))
        counts = [len(sequence.targets) for sequence in sequences]
        self._offsets = list(itertools.accumulate(counts, initial=0))
        # A sequence is done with its last target's node, and done in the order of those.
        last = self._tree.predictors[np.array(self._offsets[1:], np.int64) - 1]
        self._unfinished = sorted(range(len(sequences)), key=lambda i: -last[i])
        self._last = last
        self._path = _Path(_NO_NODES, [])
        self.length = len(self._tree)

    @torch.inference_mode()
    def advance(self, stretch: Sequence[int]) -> list[tuple[int, list[float]]]:
        """Computes the next nodes; returns the sequences that this completes."""
        nodes = np.array(stretch)
        bounds = np.searchsorted(self._predictors_in_order, [nodes[0], nodes[-1] + 1])
        here = self._by_node[slice(*bounds)]
        cache = DynamicCache(self._path.layers)
        found = _run(
            self._model,
            self._tree,
            nodes,
            self._tree.predictors[here],
            self._targets[here],
            cache,
            self._path.nodes,
        )
        self._values[here] = found.cpu().numpy()
        if nodes[-1] + 1 < self.length:
            self._path = self._path_before(nodes, cache)
        return self._completed(nodes[-1])

    def _path_before(self, computed: Integers, cache: DynamicCache) -> _Path:
        """The ancestors of the node that comes next."""
        candidates = np.concatenate([self._path.nodes, computed])
        (kept,) = np.nonzero(self._tree.attends(computed[-1:] + 1, candidates)[0])
        index = torch.from_numpy(kept).to(self._model.device)
        layers = [(_at(keys, index), _at(values, index)) for keys, values, _ in cache]
        return _Path(candidates[kept], layers)

    def _completed(self, node: int) -> list[tuple[int, list[float]]]:
        completed = []
        while self._unfinished and self._last[self._unfinished[-1]] <= node:
            index = self._unfinished.pop()
            values = self._values[self._offsets[index] : self._offsets[index + 1]]
            completed.append((index, values.tolist()))
        return completed


def _targets(sequences: Sequence[TokenSequence]) -> Integers:
    """The target tokens of the sequences, one after the other."""
    return np.array([s.tokens[position] for s in sequences for position in s.targets])


def _run(
    model: PreTrainedModel,
    tree: PrefixTree,
    nodes: Integers,
    predictors: Integers,
    targets: Integers,
    cache: DynamicCache | None = None,
    cached: Integers = _NO_NODES,
) -> torch.Tensor:
    """Log-probabilities of `targets`, each predicted by one of the nodes: (targets,).

    `cache` holds the keys and values of the nodes `cached`, and is given those of `nodes`.
    """
    device = model.device
    keys = np.concatenate([cached, nodes])
    distance = tree.depths[nodes][:, None] - tree.depths[keys]
    like = torch.empty(0, dtype=model.dtype, device=device)
    config = model.config.get_text_config()
    masks = attention_masks(config, tree.attends(nodes, keys), distance, like)
    wanted, rows = np.unique(predictors, return_inverse=True)
    columns = torch.from_numpy(wanted - nodes[0]).to(device)
    with selecting(model, torch.zeros_like(columns), columns), fastest_attention(model):
        logits = model(
            input_ids=torch.from_numpy(tree.tokens[nodes])[None].to(device),
            position_ids=torch.from_numpy(tree.depths[nodes])[None].to(device),
            attention_mask=masks,
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits[0]
    as_tensors = torch.from_numpy(rows).to(device), torch.from_numpy(targets).to(device)
    return target_log_probabilities(logits, *as_tensors)
