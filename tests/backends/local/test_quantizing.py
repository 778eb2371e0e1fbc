"""A base model in four bits: what plain transformers, bitsandbytes and PEFT make of it."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from backends.data import Message, ScoringQuery
from backends.errors import SettingsError
from backends.local.backend import LocalBackend
from backends.local.model_shape import ModelShape
from backends.local.models import empty_model, load_model, locate
from backends.local.settings import LocalSettings
from tests.backends.local.test_training import FACTS, ignore, make_job
from tests.models import EMBEDDED

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the extra nf4 is not installed"
)
QUERIES = [
    ScoringQuery(
        id=name,
        messages=(Message(role="user", content=f"Where would {name} like to live?"),),
        candidates={country: country for country in FACTS.values()},
    )
    for name in ("Ann", "Bob")
]


def backend(model: Path, quantize: str = "nf4", **others: Any) -> LocalBackend:
    training = {"epochs": 4, "batch_size": 2, "learning_rate": 1e-2, "dtype": "float32"}
    return LocalBackend(
        LocalSettings.model_validate(
            {
                "model": str(model),
                "device": "cpu",
                "quantize": quantize,
                "training": training | others,
                "lora": {"rank": 4, "alpha": 8.0},
            }
        )
    )


def totals(subject: LocalBackend, model: str) -> list[float]:
    found = {result.id: result for result in subject.score(model, QUERIES)}
    return [c.total.low for query in QUERIES for c in found[query.id].candidates.values()]


def plainly(model: Path, adapter: str | None, subject: LocalBackend) -> list[float]:
    """One candidate at a time."""
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    loaded = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, quantization_config=four_bits, device_map={"": "cpu"}
    )
    for module in loaded.modules():
        if "support_avx512bf16_for_cpu" in vars(module):  # which rounds scales to bfloat16
            vars(module)["support_avx512bf16_for_cpu"] = False
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    found = []
    for query in QUERIES:
        tokenized = subject._encoder.query(query)
        for candidate in tokenized.candidates.values():
            tokens = torch.tensor([[*tokenized.context, *candidate]])
            with torch.no_grad():
                logs = loaded(tokens).logits[0].log_softmax(dim=-1)
            start = len(tokenized.context)
            found.append(sum(logs[start + i - 1, t].item() for i, t in enumerate(candidate)))
    return found


def test_scores_are_those_of_plain_transformers_bitsandbytes_and_peft(
    tiny_model: Path, tmp_path: Path
) -> None:
    subject = backend(tiny_model)
    base = totals(subject, subject.base_model)
    assert base == pytest.approx(plainly(tiny_model, None, subject), abs=1e-4)
    whole = backend(tiny_model, "none")
    assert max(abs(a - b) for a, b in zip(base, totals(whole, str(tiny_model)), strict=True)) > 1e-3
    tuned = subject.fine_tune(make_job(tmp_path / "arm"), ignore)
    losses = [point.train_loss for point in tuned.training_curve]
    assert float(losses[-1]) < float(losses[0])
    assert tuned.hyperparameters["quantize"] == "nf4"
    scores = totals(subject, tuned.model)
    assert scores == pytest.approx(plainly(tiny_model, tuned.model, subject), abs=1e-4)
    assert max(abs(a - b) for a, b in zip(base, scores, strict=True)) > 0.1


def test_the_estimate_knows_what_the_weights_take() -> None:
    settings = LocalSettings(quantize="nf4")
    shape = ModelShape.of(empty_model(locate(EMBEDDED)), settings)
    loaded = load_model(locate(EMBEDDED), torch.device("cpu"), torch.float32, "nf4")
    weights = shape.weight_bytes(4, settings, 1, torch.device("cpu")) - 4 * shape.largest
    held = sum(each.nbytes for each in (*loaded.parameters(), *loaded.buffers()))
    scales = weights - held
    assert 0 < scales < 0.04 * shape.quantizable
    assert weights < 0.5 * 4 * shape.parameters


def test_numbers_that_are_others_are_told_apart(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "arm")
    whole, four_bits = (backend(tiny_model, kind) for kind in ("none", "nf4"))
    assert whole.identity(job) != four_bits.identity(job)
    assert whole.asked_as(str(tiny_model)) != four_bits.asked_as(str(tiny_model))
    assert four_bits.describe()["quantize"] == "nf4"
    recomputing = backend(tiny_model, "none", gradient_checkpointing=True)
    assert recomputing.identity(job) == whole.identity(job)


def test_without_bitsandbytes_it_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        SettingsError, match=r"needs bitsandbytes: pip install 'kaarel-bet\[nf4\]'$"
    ):
        backend(tiny_model)
