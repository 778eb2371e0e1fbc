"""Attention in blocks against torch's own, over trees whose queries see scattered keys; models with it."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from backends.local import tree_attention
from backends.local.answers import answers_to
from backends.local.decoding import Batch, Decoder, Vocabulary
from backends.local.detokenising import TokenBytes
from backends.local.models import load_model, load_tokenizer
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.prefix_tree import build_prefix_tree
from backends.local.sampling import Sampling
from backends.local.sequences import TokenSequence
from backends.local.tree_attention import attention, blocks_of, fastest_attention, rows_multiple
from tests.models import ARCHITECTURES

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
    columns = torch.arange(visible.shape[1])
    widths = [len(block.of_keys(columns, 0)) for block in blocks]
    assert all(width % 16 == 0 or width == len(columns) for width in widths)
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


@pytest.mark.parametrize(("dtype", "multiple"), [(torch.bfloat16, 16), (torch.float32, 1)])
def test_what_is_compiled_for_every_shape_is_filled_up(
    tiny_model: Path, dtype: torch.dtype, multiple: int
) -> None:
    model = load_model(str(tiny_model), torch.device("cpu"), dtype)
    assert rows_multiple(model) == multiple
    sizes: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, __, options: sizes.append(options["input_ids"].numel()), with_kwargs=True
    )
    texts = [TokenSequence([*range(1, n)], [n - 2]) for n in (20, 40)]
    PrefixEngine(model).log_probabilities(texts)
    list(PrefixEngine(model).stream(texts, 10))
    list(PrefixEngine(model).prefill([[1, 2, 3]], 10))
    assert all(size % multiple == 0 for size in sizes)
    assert (sum(sizes) == 38 + 38 + 3) == (multiple == 1)


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


@pytest.fixture(params=ARCHITECTURES)
def location(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> str:
    return str(tiny_models[request.param])


@pytest.fixture
def model(location: str, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    monkeypatch.setattr(tree_attention, "_QUERIES", 8)
    model = load_model(location, torch.device("cpu"), torch.bfloat16)
    # Gemma 2's own is plainer, for the sake of a soft cap that these weights never come near.
    model.config._attn_implementation = "sdpa"
    return model


def prompts(*lengths: int) -> list[list[int]]:
    """A common stem of 5 tokens, and what follows it up to these lengths."""
    draw = random.Random(0)
    stem = draw.choices(range(100, 1000), k=5)
    return [stem + draw.choices(range(100, 1000), k=length - 5) for length in lengths]


def assert_close(ours: torch.Tensor, exact: torch.Tensor) -> None:
    """Up to what bfloat16 rounds: a wrong mask moves more than half of the spread."""
    assert (ours - exact).square().mean().sqrt() <= 0.1 * exact.std()


@pytest.mark.parametrize("batch_tokens", [20, 1000])
def test_models_in_bfloat16_score_as_they_do_in_float32(
    model: PreTrainedModel, location: str, batch_tokens: int
) -> None:
    sequences = [TokenSequence(t, list(range(1, len(t)))) for t in prompts(40, 25, 30, 12)]
    exact = load_model(location, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        expected = PlainEngine(exact).log_probabilities(sequences)
    found = dict(
        item for part in PrefixEngine(model).stream(sequences, batch_tokens) for item in part
    )
    ours = [score.log_probability for i in range(len(sequences)) for score in found[i]]
    assert_close(torch.tensor(ours), expected)


def test_rows_of_unlike_lengths_are_continued_as_in_float32(
    model: PreTrainedModel, location: str
) -> None:
    asked = prompts(40, 9, 23)
    vocabulary = Vocabulary(TokenBytes(load_tokenizer(location)), frozenset())
    decoder = Decoder(model, PrefixEngine(model), vocabulary, batch_tokens=16)
    rows = [answers_to(prompt, Sampling(max_tokens=3), vocabulary) for prompt in asked]
    started = [item for ready in decoder.start(rows) for item in ready]
    batch = Batch.joined([batch for _, batch in sorted(started, key=lambda item: item[0])])
    for token in (200, 300):
        for row in batch.rows:
            row.tokens.append(token)
        batch.advance()
    exact = PlainEngine(load_model(location, torch.device("cpu"), torch.float32))
    whole = [[*prompt, 200, 300] for prompt in asked]
    expected = dict(item for part in exact.prefill(whole, 1000) for item in part)
    assert_close(batch.logits, torch.stack([expected[i].logits for i in range(len(whole))]))


def test_a_model_is_left_with_its_own_attention(model: PreTrainedModel) -> None:
    visible = np.ones((1, 3, 3), dtype=bool)

    def entered(mask: NDArray[np.bool_]) -> None:
        with fastest_attention(model, mask):
            assert model.config._attn_implementation != "sdpa"
            raise ZeroDivisionError

    for mask, error in ((visible, ZeroDivisionError), (~visible, IndexError)):
        with pytest.raises(error):
            entered(mask)
        assert model.config._attn_implementation == "sdpa"
