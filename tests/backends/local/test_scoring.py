from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from backends.data import Message, ScoringQuery
from backends.errors import DeviceMemoryError
from backends.local import scoring
from backends.local.encoding import Encoder, TokenizedQuery
from backends.local.projection import selecting
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
@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_scores_equal_those_of_plain_sequences(
    tiny_models: dict[str, Path], architecture: str, batch_tokens: int
) -> None:
    model, encoder = load(tiny_models[architecture])
    tokenized = [encoder.query(query) for query in QUERIES]
    results = {r.id: r for batch in scoring.score(model, tokenized, batch_tokens) for r in batch}
    assert results.keys() == {query.id for query in QUERIES}
    for query in tokenized:
        for label, tokens in query.candidates.items():
            score = results[query.id].candidates[label]
            whole = plain_log_probability(model, query.context, tokens)
            first = plain_log_probability(model, query.context, tokens[:1])
            assert score.total.low == score.total.high == pytest.approx(whole, rel=1e-6, abs=1e-5)
            assert score.first_token.low == pytest.approx(first, rel=1e-6, abs=1e-5)
            assert score.n_tokens == len(tokens)


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


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_out_of_memory_halves_the_batch(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    model, encoder = load(tiny_model)
    tokenized = [encoder.query(QUERIES[0])] * 5
    real = scoring._score_batch
    sizes = []

    def limited(model: PreTrainedModel, batch: Sequence[TokenizedQuery]) -> list:
        sizes.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch)

    monkeypatch.setattr(scoring, "_score_batch", limited)
    results = [r for batch in scoring.score(model, tokenized, 10_000) for r in batch]
    assert len(results) == 5
    assert sizes[0] == 5


def test_a_query_that_never_fits_is_reported(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoder = load(tiny_model)

    def never(*_: object) -> list:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(scoring, "_score_batch", never)
    with pytest.raises(DeviceMemoryError, match="out of memory on a single query"):
        list(scoring.score(model, [encoder.query(QUERIES[0])], 10))


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoder = load(tiny_model)

    def broken(*_: object) -> list:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(scoring, "_score_batch", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(scoring.score(model, [encoder.query(QUERIES[0])], 10))
