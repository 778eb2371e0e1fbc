from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from backends.data import GenerationQuery
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings, ScoringSettings


def backend(model: Path, batch_tokens: int = 2048) -> LocalBackend:
    scoring = ScoringSettings(batch_tokens=batch_tokens)
    return LocalBackend(LocalSettings(model=str(model), device="cpu", scoring=scoring))


def greedy(text: str, name: str, max_tokens: int = 8) -> GenerationQuery:
    return GenerationQuery(id=name, prompt=text, max_tokens=max_tokens)


def answers(model: Path, queries: list[GenerationQuery], batch_tokens: int = 2048) -> dict:
    subject = backend(model, batch_tokens)
    return {r.id: r for r in subject.generate(subject.base_model, queries)}


def test_batched_greedy_text_is_that_of_each_query_alone(tiny_model: Path) -> None:
    queries = [
        greedy("One two", "a"),
        greedy("A rather longer beginning", "b"),
        greedy("x", "c", 3),
    ]
    together = answers(tiny_model, queries)
    alone = answers(tiny_model, queries, batch_tokens=1)
    assert together == alone
    assert together["a"].prompt == "One two"


def test_greedy_text_takes_the_likeliest_token_each_time(tiny_model: Path) -> None:
    subject = backend(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokens = subject._encoder.context(greedy("One two", "a"))
    n_context = len(tokens)
    with torch.inference_mode():
        for _ in range(4):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    expected = subject._tokenizer.decode(tokens[n_context:], skip_special_tokens=True)
    assert answers(tiny_model, [greedy("One two", "a", 4)])["a"].texts == (expected,)


def test_samples_depend_on_their_own_seed_alone(tiny_model: Path) -> None:
    def sampled(name: str, seed: int) -> GenerationQuery:
        return GenerationQuery(
            id=name, prompt="One two", max_tokens=6, temperature=1.0, n_samples=3, seed=seed
        )

    together = answers(tiny_model, [sampled("a", 1), sampled("b", 2), sampled("c", 1)])
    assert len(set(together["a"].texts)) == 3
    assert together["a"].texts == together["c"].texts
    assert together["a"].texts != together["b"].texts
    assert answers(tiny_model, [sampled("b", 2)])["b"].texts == together["b"].texts
