"""The prefix engine: a prefix that several sequences share is computed once.

Causal attention makes the hidden states of a shared prefix the same in every sequence that has it. So
the sequences are turned into a prefix tree, and the tree's nodes are laid out as one long sequence
in which each token has the position it has in its own sequences and sees its own prefix only. Losses
and scores are those of the plain sequences; gradients through a shared prefix add up by themselves.
"""

import inspect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from backends.local.fused_lora import rows_of_adapters
from backends.local.memory import halving_when_out_of_memory
from backends.local.prefix_tree import Integers, PrefixTree, build_prefix_tree, side_by_side
from backends.local.projection import scores_of, selecting, target_log_probabilities
from backends.local.sequences import KeysAndValues, Prefilled, TokenScore, TokenSequence
from backends.local.tree_attention import attention_masks, fastest_attention, rows_multiple

_NO_NODES = np.empty(0, np.int64)


class PrefixEngine:
    """Runs a decoder for which `prefix_support.obstacle` finds none."""

    shares_prefixes = True

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def log_probabilities(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """As `Engine.log_probabilities`, in one pass over the whole tree."""
        return self.together([sequences])[0]

    def together(self, groups: Sequence[Sequence[TokenSequence]]) -> list[torch.Tensor]:
        """The same of several groups in one pass, each with its own of as many active adapters.

        Raises:
            MixedRowsError: as `rows_of_adapters`.
        """
        trees = [self._tree(sequences) for sequences in groups]
        tree = side_by_side(trees)
        wanted, rows = np.unique(tree.predictors, return_inverse=True)
        wanted = np.pad(wanted, (0, -len(wanted) % rows_multiple(self._model)), mode="edge")
        with rows_of_adapters([len(each) for each in trees]):
            logits = _logits(self._model, tree, np.arange(len(tree)), wanted)
        targets = np.concatenate([_targets(sequences) for sequences in groups])
        as_tensors = (torch.from_numpy(each).to(logits.device) for each in (rows, targets))
        found = target_log_probabilities(logits, *as_tensors)
        return list(found.split([len(each.predictors) for each in trees]))

    def stream(
        self, sequences: Sequence[TokenSequence], batch_tokens: int, top: int = 0
    ) -> Iterator[list[tuple[int, list[TokenScore]]]]:
        """As `Engine.stream`: the tree in stretches of `batch_tokens` nodes.

        Between two stretches the keys and values of one path are kept, so the memory needed does not
        grow with the number of sequences.
        """
        tree = self._tree(sequences)
        scoring = _Scoring(tree, sequences, top)
        walk = _Walk(self._model, tree)

        def advance(nodes: Sequence[int]) -> list[tuple[int, list[TokenScore]]]:
            return scoring.take(walk.advance(nodes))

        for stretch in walk.stretches(batch_tokens):
            yield from halving_when_out_of_memory(advance, stretch)

    def prefill(
        self, prompts: Sequence[Sequence[int]], batch_tokens: int
    ) -> Iterator[list[tuple[int, Prefilled]]]:
        """As `Engine.prefill`, likewise."""
        # A token to be predicted after each prompt's last keeps that last one in the tree.
        asked = [TokenSequence([*prompt, 0], [len(prompt)]) for prompt in prompts]
        tree = self._tree(asked)
        walk = _Walk(self._model, tree)

        def advance(nodes: Sequence[int]) -> list[tuple[int, Prefilled]]:
            computed = walk.advance(nodes)
            return [
                (
                    int(prompt),
                    Prefilled(
                        computed.logits[row],
                        partial(computed.path.layers_at, tree, int(tree.predictors[prompt])),
                    ),
                )
                for prompt, row in zip(computed.asked, computed.rows, strict=True)
            ]

        for stretch in walk.stretches(batch_tokens):
            yield from halving_when_out_of_memory(advance, stretch)

    def _tree(self, sequences: Sequence[TokenSequence]) -> PrefixTree:
        return build_prefix_tree(sequences).filled_up(rows_multiple(self._model))


@dataclass(frozen=True)
class _Path:
    """Some nodes and, for each layer, their keys and values: (1, key heads, nodes, width) both.

    A layer that uses another's has none of its own.
    """

    nodes: Integers
    layers: list[KeysAndValues]

    def ending_at(self, tree: PrefixTree, node: int) -> "_Path":
        """Those nodes that are an ancestor of this one, or itself."""
        (kept,) = np.nonzero(tree.attends(np.array([node]), self.nodes)[0])
        return _Path(
            self.nodes[kept], [(_at(keys, kept), _at(values, kept)) for keys, values in self.layers]
        )

    @torch.inference_mode()
    def layers_at(self, tree: PrefixTree, node: int) -> list[KeysAndValues]:
        """The keys and values of those nodes."""
        return self.ending_at(tree, node).layers


def _at(tensor: torch.Tensor | None, kept: Integers) -> torch.Tensor | None:
    return None if tensor is None else tensor[:, :, torch.from_numpy(kept).to(tensor.device)]


@dataclass(frozen=True)
class _Stretch:
    """What is known once a stretch of nodes is computed."""

    last: int
    """Its last node."""
    asked: Integers
    """(a,): the places, in the list of all predictors, of those that stand in this stretch."""
    rows: Integers
    """(a,): where each of them has its logits."""
    logits: torch.Tensor
    """(m, vocabulary)"""
    path: _Path
    """All that the stretch could see, and itself."""


class _Walk:
    """One pass over a tree in depth-first order, without gradients."""

    def __init__(self, model: PreTrainedModel, tree: PrefixTree) -> None:
        self._model = model
        self._tree = tree
        self._by_node = np.argsort(tree.predictors, kind="stable")
        self._predictors_in_order = tree.predictors[self._by_node]
        self._path = _Path(_NO_NODES, [])

    def stretches(self, batch_tokens: int) -> Iterator[range]:
        """The nodes, that many at a time, or as many more as `rows_multiple` asks for."""
        multiple, length = rows_multiple(self._model), len(self._tree)
        size = math.ceil(batch_tokens / multiple) * multiple
        for start in range(0, length, size):
            yield range(start, min(start + size, length))

    @torch.inference_mode()
    def advance(self, stretch: Sequence[int]) -> _Stretch:
        """Computes the next nodes, and the logits at those that predict something."""
        nodes = np.array(stretch)
        bounds = np.searchsorted(self._predictors_in_order, [nodes[0], nodes[-1] + 1])
        asked = self._by_node[slice(*bounds)]
        wanted, rows = np.unique(self._tree.predictors[asked], return_inverse=True)
        cache = DynamicCache(self._path.layers)
        logits = _logits(self._model, self._tree, nodes, wanted, cache, self._path.nodes)
        layers = [(keys, values) for keys, values, _ in cache]
        seen = _Path(np.concatenate([self._path.nodes, nodes]), layers)
        if nodes[-1] + 1 < len(self._tree):
            self._path = seen.ending_at(self._tree, nodes[-1] + 1)
        return _Stretch(int(nodes[-1]), asked, rows, logits, seen)


class _Scoring:
    """Gathers the targets' scores until sequences are complete."""

    def __init__(self, tree: PrefixTree, sequences: Sequence[TokenSequence], top: int) -> None:
        self._targets = _targets(sequences)
        self._top = top
        self._scores: list[TokenScore | None] = [None] * len(self._targets)
        counts = [len(sequence.targets) for sequence in sequences]
        self._offsets = list(itertools.accumulate(counts, initial=0))
        # A sequence is done with its last target's node, and done in the order of those.
        last = tree.predictors[np.array(self._offsets[1:], np.int64) - 1]
        self._unfinished = sorted(range(len(sequences)), key=lambda i: -last[i])
        self._last = last

    @torch.inference_mode()
    def take(self, computed: _Stretch) -> list[tuple[int, list[TokenScore]]]:
        """Adds what a stretch gave; returns the sequences that this completes."""
        device = computed.logits.device
        rows = torch.from_numpy(computed.rows).to(device)
        targets = torch.from_numpy(self._targets[computed.asked]).to(device)
        found = scores_of(computed.logits, rows, targets, self._top)
        for place, score in zip(computed.asked, found, strict=True):
            self._scores[place] = score
        completed = []
        while self._unfinished and self._last[self._unfinished[-1]] <= computed.last:
            index = self._unfinished.pop()
            start, end = self._offsets[index], self._offsets[index + 1]
            completed.append((index, [score for score in self._scores[start:end] if score]))
            self._scores[start:end] = [None] * (end - start)
        return completed


def _targets(sequences: Sequence[TokenSequence]) -> Integers:
    """The target tokens of the sequences, one after the other."""
    return np.array([s.tokens[position] for s in sequences for position in s.targets])


def _logits(
    model: PreTrainedModel,
    tree: PrefixTree,
    nodes: Integers,
    wanted: Integers,
    cache: DynamicCache | None = None,
    cached: Integers = _NO_NODES,
) -> torch.Tensor:
    """Logits at the nodes `wanted`, some of `nodes`: (wanted, vocabulary).

    `cache` holds the keys and values of the nodes `cached`, and is given those of `nodes`.
    """
    device = model.device
    keys = np.concatenate([cached, nodes])
    distance = tree.depths[nodes][:, None] - tree.depths[keys]
    like = torch.empty(0, dtype=model.dtype, device=device)
    config = model.config.get_text_config()
    visible = tree.attends(nodes, keys)[None]
    masks = attention_masks(config, visible, distance, like)
    columns = torch.from_numpy(wanted - nodes[0]).to(device)
    selected = selecting(model, torch.zeros_like(columns), columns)
    with selected, fastest_attention(model, visible):
        return model(
            input_ids=torch.from_numpy(tree.tokens[nodes])[None].to(device),
            position_ids=torch.from_numpy(tree.depths[nodes])[None].to(device),
            attention_mask=masks,
            use_cache=cache is not None,
            **{cache_keyword(model): cache},
        ).logits[0]


def cache_keyword(model: PreTrainedModel) -> str:
    """What the model calls its keys and values: newer transformers say `cache`."""
    base = getattr(model, "get_base_model", lambda: model)()
    known = inspect.signature(base.forward).parameters
    return "cache" if "cache" in known else "past_key_values"
