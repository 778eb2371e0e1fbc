import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from backends.data import GenerationQuery, join_parts
from backends.errors import DataError, DeviceMemoryError
from backends.local.backend import LocalBackend
from backends.local.decoding import Batch
from backends.local.models import locate
from backends.local.settings import LocalSettings, ScoringSettings
from tests.models import ARCHITECTURES, EMBEDDED


def backend(model: Path) -> LocalBackend:
    scoring = ScoringSettings(batch_tokens=2048)
    return LocalBackend(LocalSettings(model=str(model), device="cpu", scoring=scoring))


def greedy(text: str, name: str, max_tokens: int = 8) -> GenerationQuery:
    return GenerationQuery(id=name, prompt=text, max_tokens=max_tokens)


def answers(model: Path, queries: list[GenerationQuery]) -> dict:
    subject = backend(model)
    return join_parts(subject.generate(subject.base_model, queries))


def test_batched_greedy_text_is_that_of_each_query_alone(tiny_model: Path) -> None:
    queries = [
        greedy("One two", "a"),
        greedy("A rather longer beginning", "b"),
        greedy("x", "c", 3),
    ]
    together = answers(tiny_model, queries)
    subject = backend(tiny_model)
    alone = [r for q in queries for r in subject.generate(subject.base_model, [q])]
    assert together == {r.id: r for r in alone}
    assert together["a"].prompt == "One two"


def test_greedy_text_takes_the_likeliest_token_each_time(tiny_model: Path) -> None:
    subject = backend(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokens = subject._encoder.prompt(greedy("One two", "a"))
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


def test_a_models_own_sampling_settings_do_not_colour_the_text(
    tiny_model: Path, tmp_path: Path
) -> None:
    repetitive = tmp_path / "model"
    shutil.copytree(tiny_model, repetitive)
    (repetitive / "generation_config.json").write_text(
        json.dumps({"repetition_penalty": 50.0, "top_k": 1, "do_sample": True, "temperature": 9.0})
    )
    query = greedy("One two", "a", 12)
    assert answers(repetitive, [query]) == answers(tiny_model, [query])


def test_an_answer_that_would_not_fit_the_context_is_refused(tiny_model: Path) -> None:
    subject = backend(tiny_model)
    with pytest.raises(
        DataError, match=r"query 'a' \(max_tokens included\): 5\d\d tokens are longer"
    ):
        subject.estimate([greedy("One two", "a", 511)])


def test_the_estimate_counts_what_is_generated(tiny_model: Path) -> None:
    subject = backend(tiny_model)
    sampled = GenerationQuery(id="a", prompt="One two", max_tokens=6, temperature=1.0, n_samples=3)
    n_prompt = len(subject._encoder.prompt(sampled))
    assert subject.estimate([sampled]).tokens == n_prompt + 18


def test_an_empty_prompt_is_the_beginning_of_text(tiny_model: Path) -> None:
    assert answers(tiny_model, [greedy("", "a")])["a"].texts[0]


@pytest.mark.parametrize("model", [*ARCHITECTURES, EMBEDDED])
def test_greedy_text_is_that_of_transformers_own_generate(
    tiny_models: dict[str, Path], model: str
) -> None:
    location = tiny_models[model] if model in tiny_models else Path(locate(model))
    queries = [
        greedy("One two", "a", 12),
        greedy("A rather longer beginning, longer than the window of attention", "b", 12),
        greedy("The capital of France is", "c", 12),
    ]
    ours = answers(location, queries)
    tokenizer = AutoTokenizer.from_pretrained(location)
    theirs: Any = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    for query in queries:
        tokens = tokenizer(query.prompt, return_tensors="pt")
        output = theirs.generate(**tokens, max_new_tokens=12, do_sample=False, pad_token_id=0)
        new = output[0, tokens["input_ids"].shape[1] :]
        assert ours[query.id].texts == (tokenizer.decode(new, skip_special_tokens=True),)


def test_samples_come_one_by_one_and_any_of_them_can_be_asked_for_alone(tiny_model: Path) -> None:
    query = GenerationQuery(
        id="a", prompt="One two", max_tokens=6, temperature=1.0, n_samples=70, seed=3
    )
    subject = backend(tiny_model)
    parts = list(subject.generate(subject.base_model, [query]))
    assert sorted(part.first_sample for part in parts) == list(range(70))
    assert [part.prompt for part in parts if part.first_sample == 0] == ["One two"]
    (whole,) = join_parts(parts).values()
    some = answers(tiny_model, [query.part(range(5, 8)), greedy("Another", "b", 6)])["a"]
    assert some.texts == whole.texts[5:8]


def test_without_memory_for_all_of_them_the_rest_is_asked_in_halves(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = GenerationQuery(
        id="a", prompt="One two", max_tokens=6, temperature=1.0, n_samples=9, seed=3
    )
    expected = answers(tiny_model, [query])
    advance, sizes = Batch.advance, list[int]()

    def short_of_memory(self: Batch[Any]) -> None:
        sizes.append(len(self.rows))
        if len(self.rows) > 3 and len(self.rows[0].tokens) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        advance(self)

    monkeypatch.setattr(Batch, "advance", short_of_memory)
    subject = backend(tiny_model)
    parts = list(subject.generate(subject.base_model, [query]))
    assert join_parts(parts) == expected
    assert sorted(part.first_sample for part in parts) == list(range(9))
    assert 9 in sizes
    assert 1 not in sizes
    monkeypatch.setattr(Batch, "advance", _never)
    with pytest.raises(DeviceMemoryError, match="a single answer"):
        answers(tiny_model, [query])


def _never(self: Batch[Any]) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
