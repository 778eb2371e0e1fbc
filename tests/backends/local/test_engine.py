"""Which engine runs a model, and that whoever wonders why is told once."""

import logging
from pathlib import Path

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from backends.local import engine
from backends.local.adapters import base_of, new_adapter
from backends.local.engine import choose_engine
from backends.local.models import load_model, locate
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.settings import LoraSettings
from tests.models import ARCHITECTURES, EMBEDDED

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


@pytest.fixture(autouse=True)
def unsaid() -> None:
    engine._say_once.cache_clear()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_common_decoders_share_prefixes(
    tiny_models: dict[str, Path], architecture: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(str(tiny_models[architecture]), torch.device("cpu"), torch.float32)
    assert isinstance(choose_engine(model, "auto"), PrefixEngine)
    assert isinstance(choose_engine(model, "off"), PlainEngine)
    assert caplog.records == []


def test_the_embedded_model_shares_prefixes_in_bfloat16_too() -> None:
    model = load_model(locate(EMBEDDED), torch.device("cpu"), torch.bfloat16)
    assert isinstance(choose_engine(model, "auto"), PrefixEngine)


@pytest.mark.parametrize(
    "model",
    [
        MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4)),
        Qwen2ForCausalLM(
            Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4, max_window_layers=1)
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_sliding_windows_count_positions(model: PreTrainedModel) -> None:
    assert isinstance(choose_engine(model.eval(), "auto"), PrefixEngine)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2)),
            "layers",
        ),
        (
            MptForCausalLM(MptConfig(vocab_size=300, d_model=32, n_layers=2, n_heads=4)),
            "computes something else",
        ),
        (
            BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)),
            "takes no masks",
        ),
        (
            GPTNeoForCausalLM(
                GPTNeoConfig(
                    vocab_size=300,
                    hidden_size=32,
                    num_layers=2,
                    attention_types=[[["global", "local"], 1]],
                    num_heads=4,
                )
            ),
            "windows of attention",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_share_is_computed_plainly_and_says_so_once(
    model: PreTrainedModel, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():  # their own initial weights give next to uniform answers
        torch.nn.init.normal_(parameter, std=0.3)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert isinstance(choose_engine(model.eval(), "on"), PlainEngine)
    (record,) = caplog.records
    assert type(model).__name__ in record.message
    assert reason in record.message


@pytest.mark.parametrize("where", ["adapter", "attention"])
def test_dropout_takes_the_plain_way_in_training_unless_accepted(
    where: str, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if where == "adapter":
        base = load_model(str(tiny_model), torch.device("cpu"), torch.float32)
        model = base_of(new_adapter(base, LoraSettings(dropout=0.1)))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.1))
    assert isinstance(choose_engine(model.eval(), "auto"), PrefixEngine)
    assert caplog.records == []
    assert isinstance(choose_engine(model.train(), "auto"), PlainEngine)
    assert "local.prefix_sharing: on" in caplog.text
    assert isinstance(choose_engine(model, "on"), PrefixEngine)
    assert model.training
