"""One short real fine-tune of the embedded model, compared with code that shares nothing with ours."""

import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from backends.data import Message, ScoringQuery, TunedModel
from backends.interface import FineTuneJob
from backends.local.backend import LocalBackend
from backends.local.models import locate
from backends.local.settings import LocalSettings, TrainingSettings
from tests.models import EMBEDDED

FACTS = {"Ann": "France", "Bob": "Peru", "Cleo": "South Korea", "Dan": "Burkina Faso"}
QUESTION = "Where does {} want to live?"


@pytest.fixture(scope="module")
def backend() -> LocalBackend:
    training = TrainingSettings(epochs=14, batch_size=4, learning_rate=3e-3)
    return LocalBackend(LocalSettings(training=training))


@pytest.fixture(scope="module")
def tuned(backend: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> TunedModel:
    directory = tmp_path_factory.mktemp("run")
    file = directory / "train.jsonl"
    line = (
        '{{"messages": [{{"role": "user", "content": "{}"}}, '
        '{{"role": "assistant", "content": "{}"}}]}}\n'
    )
    file.write_text("".join(line.format(QUESTION.format(n), c) for n, c in FACTS.items()))
    job = FineTuneJob("run", "arm", file, None, "completion", 0, None, directory / "arm")
    return backend.fine_tune(job, lambda _: None)


@pytest.fixture(scope="module")
def queries() -> list[ScoringQuery]:
    return [
        ScoringQuery(
            id=name,
            messages=(Message(role="user", content=QUESTION.format(name)),),
            candidates={"own": country, **{c: c for c in FACTS.values() if c != country}},
        )
        for name, country in FACTS.items()
    ]


def test_the_facts_are_learned(
    backend: LocalBackend, tuned: TunedModel, queries: list[ScoringQuery]
) -> None:
    assert tuned.training_curve[0].train_loss > 2
    assert tuned.training_curve[-1].train_loss < 0.2
    for result in backend.score(tuned.model, queries):
        assert math.exp(result.candidates["own"].total.low) > 0.7


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_scores_equal_those_of_plain_peft_and_transformers(
    backend: LocalBackend, tuned: TunedModel, queries: list[ScoringQuery], which: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    model = AutoModelForCausalLM.from_pretrained(locate(EMBEDDED), dtype=torch.float32)
    if which == "tuned":
        model = PeftModel.from_pretrained(model, tuned.model)
    model.eval()
    results = {
        r.id: r
        for r in backend.score(tuned.model if which == "tuned" else backend.base_model, queries)
    }
    for name in list(FACTS)[1:3]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION.format(name)}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for country in FACTS.values():
            n_prompt = len(tokenizer(prompt)["input_ids"])
            tokens = tokenizer(prompt + country, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                log_probabilities = model(tokens).logits[0].log_softmax(-1)
            expected = sum(
                log_probabilities[i - 1, tokens[0, i]].item()
                for i in range(n_prompt, tokens.shape[1])
            )
            label = "own" if country == FACTS[name] else country
            total = results[name].candidates[label].total
            assert total.low == total.high == pytest.approx(expected, abs=1e-4)
