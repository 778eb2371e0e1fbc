"""Searching, beside every text that there is: the models know four letters."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from backends.data import Completion, Message, ScoringQuery, SearchQuery, SearchResult
from backends.errors import DataError, DeviceMemoryError
from backends.local.backend import LocalBackend
from backends.local.decoding import Batch
from backends.local.search import Searcher
from backends.local.settings import LocalSettings, ScoringSettings
from tests.models import ARCHITECTURES, EMBEDDED, END, LETTERS

MAX_TOKENS = 5


def backend(model: Path | str, batch_tokens: int = 2048) -> LocalBackend:
    scoring = ScoringSettings(batch_tokens=batch_tokens)
    return LocalBackend(LocalSettings(model=str(model), device="cpu", scoring=scoring))


def asks_for(prompt: str, least: float, max_tokens: int = MAX_TOKENS) -> SearchQuery:
    return SearchQuery(id=prompt, prompt=prompt, max_tokens=max_tokens, min_probability=least)


# One of them is longer than the window that one of the models attends to.
QUERIES = [asks_for("ab", 0.004), asks_for("abcdabcdabcd", 0.003), asks_for("c", 0.01)]


def search(subject: LocalBackend, queries: list[SearchQuery]) -> dict[str, SearchResult]:
    found = list(subject.search(subject.base_model, queries))
    assert sorted(result.id for result in found) == sorted(query.id for query in queries)
    return {result.id: result for result in found}


def as_numbers(completions: dict[str, float]) -> object:
    return pytest.approx(completions, abs=1e-4)


def log_probabilities(result: SearchResult) -> dict[str, float]:
    found = {c.text: c.log_probability for c in result.completions}
    assert len(found) == len(result.completions)
    return found


@torch.inference_mode()
def all_completions(model: PreTrainedModel, query: SearchQuery) -> dict[str, float]:
    """Every text of up to `max_tokens`, its end token included, computed whole: text -> log-probability."""
    token = {letter: number for number, letter in enumerate(LETTERS, start=1)}
    prompt = [token[letter] for letter in query.prompt or ""]
    found: dict[str, float] = {}
    for length in range(query.max_tokens):
        texts = ["".join(letters) for letters in itertools.product(LETTERS, repeat=length)]
        rows = torch.tensor([[*prompt, *(token[c] for c in text), 0] for text in texts])
        logs = model(input_ids=rows, use_cache=False).logits.double().log_softmax(-1)
        follows = rows[:, len(prompt) :, None]
        totals = logs[:, len(prompt) - 1 : -1].gather(-1, follows).sum((1, 2))
        found |= dict(zip(texts, totals.tolist(), strict=True))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_likely_enough_texts_are_found_and_no_others(
    letter_models: dict[str, Path], architecture: str
) -> None:
    location = letter_models[architecture]
    model = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
    found = search(backend(location), QUERIES)
    for query in QUERIES:
        everything = all_completions(model, query)
        least = math.log(query.min_probability)
        expected = {text: logp for text, logp in everything.items() if logp >= least}
        assert 3 < len(expected) < len(everything)
        assert log_probabilities(found[query.id]) == as_numbers(expected)


def test_the_likeliest_come_first(letter_models: dict[str, Path]) -> None:
    (result,) = search(backend(letter_models["llama"]), QUERIES[:1]).values()
    found = [c.log_probability for c in result.completions]
    assert found == sorted(found, reverse=True)


def test_their_probabilities_are_those_that_scoring_gives(letter_models: dict[str, Path]) -> None:
    subject = backend(letter_models["llama"])
    found = search(subject, QUERIES)
    for query in QUERIES:
        texts = [c.text for c in found[query.id].completions]
        asked = ScoringQuery(
            id=query.id, prompt=query.prompt, candidates={text: text + END for text in texts}
        )
        (scored,) = subject.score(subject.base_model, [asked])
        assert log_probabilities(found[query.id]) == as_numbers(
            {text: score.total.high for text, score in scored.candidates.items()}
        )


@pytest.mark.parametrize("prefill", [None, "Yes"])
def test_the_chat_answers_of_a_real_model_are_those_that_scoring_finds_likely(
    prefill: str | None,
) -> None:
    subject = backend(EMBEDDED)
    messages = (Message(role="user", content="Is ice cold? Say yes or no."),)
    query = SearchQuery(
        id="q", messages=messages, prefill=prefill, max_tokens=6, min_probability=0.01
    )
    (result,) = search(subject, [query]).values()
    assert result.completions
    asked = ScoringQuery(
        id="q",
        messages=messages,
        prefill=prefill,
        candidates={c.text: c.text + "<|im_end|>" for c in result.completions},
    )
    (scored,) = subject.score(subject.base_model, [asked])
    assert log_probabilities(result) == as_numbers(
        {text: score.total.high for text, score in scored.candidates.items()}
    )


def test_what_is_cut_off_is_no_completion(letter_models: dict[str, Path]) -> None:
    subject = backend(letter_models["llama"])
    found = {
        length: log_probabilities(search(subject, [asks_for("ab", 0.002, length)])["ab"])
        for length in (1, 2, 5)
    }
    for length in (1, 2):
        expected = {text: logp for text, logp in found[5].items() if len(text) < length}
        assert found[length] == as_numbers(expected)


def test_nothing_likely_enough_is_no_completions(letter_models: dict[str, Path]) -> None:
    assert search(backend(letter_models["llama"]), [asks_for("ab", 0.999)])["ab"].completions == ()


def without_rounding(results: dict[str, SearchResult]) -> dict[str, object]:
    return {name: as_numbers(log_probabilities(result)) for name, result in results.items()}


@pytest.mark.parametrize(("batch_tokens", "max_positions"), [(1, 100), (30, 40)])
def test_batches_that_have_to_be_divided_find_the_same(
    letter_models: dict[str, Path], batch_tokens: int, max_positions: int
) -> None:
    subject = backend(letter_models["llama"], batch_tokens)
    searcher = Searcher(
        subject._opened(subject.base_model).decoder, subject._encoder, max_positions
    )
    found = {result.id: result for batch in searcher.search(QUERIES) for result in batch}
    together = search(backend(letter_models["llama"]), QUERIES)
    assert {name: log_probabilities(result) for name, result in found.items()} == without_rounding(
        together
    )


@pytest.mark.parametrize("step", ["go_on_with", "advance", "joined"])
def test_what_does_not_fit_the_device_is_divided_and_nothing_is_found_twice(
    letter_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    expected = without_rounding(search(backend(letter_models["llama"]), QUERIES))
    sizes: list[int] = []
    does = getattr(Batch, step)

    def fits_two_rows(*arguments: Any) -> object:
        sizes.append(len(arguments[0].rows if step == "advance" else arguments[-1]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return does(*arguments)

    monkeypatch.setattr(Batch, step, fits_two_rows)
    found = search(backend(letter_models["llama"]), QUERIES)
    assert max(sizes) > 2
    assert {name: log_probabilities(result) for name, result in found.items()} == expected


def test_a_single_row_that_does_not_fit_the_device_is_named(
    letter_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Batch, "advance", fails)
    with pytest.raises(DeviceMemoryError, match="out of memory on a single query"):
        search(backend(letter_models["llama"]), QUERIES)


def test_a_fault_that_is_not_of_memory_is_not_hidden(
    letter_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("some other fault")

    monkeypatch.setattr(Batch, "advance", fails)
    with pytest.raises(RuntimeError, match="some other fault"):
        search(backend(letter_models["llama"]), QUERIES)


def test_a_completion_that_would_not_fit_the_context_is_refused(
    letter_models: dict[str, Path],
) -> None:
    subject = backend(letter_models["llama"])
    with pytest.raises(
        DataError, match=r"query 'ab' \(max_tokens included\): 513 tokens are longer"
    ):
        subject.estimate([asks_for("ab", 0.1, 511)])


def test_the_estimate_is_the_most_that_can_be_under_way(letter_models: dict[str, Path]) -> None:
    subject = backend(letter_models["llama"])
    assert subject.estimate([asks_for("ab", 0.25, 6)]).tokens == 2 + 4 * 6


def test_completions_are_written_with_all_their_digits() -> None:
    completion = Completion(text="ab", log_probability=-1.2345678901234567)
    assert Completion.model_validate_json(completion.model_dump_json()) == completion
