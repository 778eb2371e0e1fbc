import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backends.local.prefix_tree import build_prefix_tree
from backends.local.sequences import TokenSequence

# Few different tokens, so that prefixes are often shared.
token_lists = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=9), min_size=1, max_size=12)


def sequences(draws: list[list[int]]) -> list[TokenSequence]:
    return [
        TokenSequence(tokens, list(range(1, len(tokens), 1 + i % 2)))
        for i, tokens in enumerate(draws)
    ]


@given(token_lists)
def test_every_distinct_prefix_is_one_node(draws: list[list[int]]) -> None:
    given_sequences = sequences(draws)
    tree = build_prefix_tree(given_sequences)
    prefixes = {tuple(s.tokens[: n + 1]) for s in given_sequences for n in range(s.targets[-1])}
    assert len(tree) == len(prefixes)
    nodes = range(len(tree))
    seen = set()
    for node in nodes:
        (path,) = tree.attends(
            tree.depths[node : node + 1] * 0 + node, tree.depths * 0 + [*nodes]
        ).tolist()
        ancestors = [other for other in nodes if path[other]]
        assert tree.depths[ancestors].tolist() == list(range(len(ancestors)))
        seen.add(tuple(tree.tokens[ancestors].tolist()))
    assert seen == prefixes


@given(token_lists)
def test_a_target_is_predicted_by_what_stands_before_it(draws: list[list[int]]) -> None:
    given_sequences = sequences(draws)
    tree = build_prefix_tree(given_sequences)
    asked = [(s, position) for s in given_sequences for position in s.targets]
    assert len(tree.predictors) == len(asked)
    everything = tree.depths * 0 + [*range(len(tree))]
    for predictor, (sequence, position) in zip(tree.predictors, asked, strict=True):
        (path,) = tree.attends(predictor[None], everything)
        assert tree.tokens[path].tolist() == sequence.tokens[:position]


@given(token_lists, st.integers(1, 8))
def test_a_filled_up_tree_has_nodes_more_that_see_and_are_seen_by_none(
    draws: list[list[int]], multiple: int
) -> None:
    tree = build_prefix_tree(sequences(draws))
    filled = tree.filled_up(multiple)
    assert len(filled) % multiple == 0
    assert 0 <= len(filled) - len(tree) < multiple
    n = len(tree)
    nodes = np.arange(len(filled))
    attends = filled.attends(nodes, nodes)
    assert (attends[:n, :n] == tree.attends(nodes[:n], nodes[:n])).all()
    assert not attends[:n, n:].any()
    assert (attends[n:] == np.eye(len(filled), dtype=bool)[n:]).all()
    assert set(filled.tokens[n:]) <= {tree.tokens[0]}
    assert not filled.depths[n:].any()
    assert filled.predictors is tree.predictors
