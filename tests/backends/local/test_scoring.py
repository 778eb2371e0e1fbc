from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from backends.data import Message, ScoringQuery
from backends.local.encoding import Encoder
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.projection import selecting
from backends.local.scoring import score
from tests.models import ARCHITECTURES


def load(directory: Path) -> tuple[PreTrainedModel, Encoder]:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return model, Encoder(AutoTokenizer.from_pretrained(directory), context_length=512)


QUERIES = [
    ScoringQuery(
        id=f"q{i}",
        messages=(Message(role="user", content=f"What is the capital of {place}?"),),
        candidates={"a": "Paris", "b": "New Delhi", "c": "The capital is Ouagadougou", "d": "A"},
    )
    for i, place in enumerate(["France", "India", "Burkina Faso", "Papua New Guinea", "Peru"])
]


def plain_log_probability(model: PreTrainedModel, context: list[int], tokens: list[int]) -> float:
    """One sequence at a time, all logits, no cache, no batch."""
    with torch.inference_mode():
        logits = model(torch.tensor([context + tokens]), use_cache=False).logits[0]
    log_probabilities = torch.log_softmax(logits.float(), -1)
    start = len(context) - 1
    return sum(log_probabilities[start + i, token].item() for i, token in enumerate(tokens))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("engine", [PlainEngine, PrefixEngine])
@pytest.mark.parametrize("batch_tokens", [1, 7, 10_000])
def test_scores_equal_those_of_plain_sequences(
    tiny_models: dict[str, Path],
    architecture: str,
    engine: type[PlainEngine | PrefixEngine],
    batch_tokens: int,
) -> None:
    model, encoder = load(tiny_models[architecture])
    tokenized = [encoder.query(query) for query in QUERIES]
    results = {r.id: r for batch in score(engine(model), tokenized, batch_tokens) for r in batch}
    assert results.keys() == {query.id for query in QUERIES}
    for query in tokenized:
        for label, tokens in query.candidates.items():
            found = results[query.id].candidates[label]
            whole = plain_log_probability(model, query.context, tokens)
            first = plain_log_probability(model, query.context, tokens[:1])
            assert found.total.low == found.total.high == pytest.approx(whole, rel=1e-6, abs=1e-5)
            assert found.first_token.low == pytest.approx(first, rel=1e-6, abs=1e-5)
            assert found.n_tokens == len(tokens)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("engine", [PlainEngine, PrefixEngine])
def test_after_a_prefill_scores_are_those_of_the_whole_text(
    tiny_models: dict[str, Path], architecture: str, engine: type[PlainEngine | PrefixEngine]
) -> None:
    model, encoder = load(tiny_models[architecture])
    query = QUERIES[0].model_copy(
        update={"prefill": "The answer is", "candidates": {"a": " Paris", "b": " New Delhi"}}
    )
    [result] = [r for batch in score(engine(model), [encoder.query(query)], 512) for r in batch]
    tokenizer = AutoTokenizer.from_pretrained(tiny_models[architecture])
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    context = tokenizer.encode(f"{text}The answer is")
    for label, candidate in query.candidates.items():
        whole = tokenizer.encode(f"{text}The answer is{candidate}")
        assert whole[: len(context)] == context
        expected = plain_log_probability(model, context, whole[len(context) :])
        assert result.candidates[label].total.low == pytest.approx(expected, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_selected_logits_equal_those_of_the_whole_projection(
    tiny_models: dict[str, Path], architecture: str
) -> None:
    model, _ = load(tiny_models[architecture])
    inputs = torch.randint(0, 1000, (3, 12), generator=torch.Generator().manual_seed(0))
    rows, columns = torch.tensor([0, 2, 2]), torch.tensor([11, 0, 5])
    with torch.inference_mode():
        whole = model(inputs, use_cache=False).logits
        with selecting(model, rows, columns):
            selected = model(inputs, use_cache=False).logits
        again = model(inputs, use_cache=False).logits
    torch.testing.assert_close(selected, whole[rows, columns].unsqueeze(0))
    torch.testing.assert_close(again, whole)


def test_queries_of_one_id_are_kept_apart(tiny_model: Path) -> None:
    model, encoder = load(tiny_model)
    tokenized = [
        encoder.query(query.model_copy(update={"id": "same"})) for query in (QUERIES[0], QUERIES[1])
    ]
    results = [r for batch in score(PrefixEngine(model), tokenized, 100) for r in batch]
    assert [r.id for r in results] == ["same", "same"]
    assert results[0].candidates["a"] != results[1].candidates["a"]


def test_results_say_whether_their_prompt_was_cut(tiny_model: Path) -> None:
    model, encoder = load(tiny_model)
    prompts = {"short": "word " * 20, "long": "word " * 700}
    tokenized = [
        encoder.query(
            ScoringQuery(id=name, prompt=f"{prompt}A:", candidates={"a": " x", "b": " y"})
        )
        for name, prompt in prompts.items()
    ]
    found = {r.id: r.is_cut for batch in score(PrefixEngine(model), tokenized, 600) for r in batch}
    assert found == {"short": False, "long": True}
