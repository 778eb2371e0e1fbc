"""Which engine runs a model, and that whoever wonders why is told once."""

import logging
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
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
    MixtralConfig,
    MixtralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from backends.data import GenerationQuery, ScoringQuery
from backends.local import engine
from backends.local.adapters import base_of, new_adapter
from backends.local.backend import LocalBackend
from backends.local.engine import choose_engine
from backends.local.models import load_model, locate
from backends.local.plain import PlainEngine
from backends.local.prefix_engine import PrefixEngine
from backends.local.settings import LocalSettings, LoraSettings
from backends.local.training_noise import training_noise
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
    engine.say_once.cache_clear()


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


@pytest.mark.parametrize("where", ["adapter", "attention", "layer", "router"])
def test_noise_takes_the_plain_way_in_training_unless_accepted(
    where: str, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if where == "adapter":
        base = load_model(str(tiny_model), torch.device("cpu"), torch.float32)
        model = base_of(new_adapter(base, LoraSettings(dropout=0.1)))
    elif where == "attention":
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.1))
    elif where == "layer":  # a function's argument, no module of its own
        model = OPTForCausalLM(
            OPTConfig(vocab_size=300, hidden_size=32, num_attention_heads=4, dropout=0.1)
        )
    else:
        model = MixtralForCausalLM(
            MixtralConfig(**SHAPE, num_local_experts=2, router_jitter_noise=0.1)
        )
    own = {
        "adapter": None,
        "attention": "attention_dropout 0.1",
        "layer": "dropout 0.1",
        "router": "jitter_noise 0.1",
    }[where]
    assert isinstance(choose_engine(model.eval(), "auto"), PrefixEngine)
    assert caplog.records == []
    for _ in range(2):
        assert isinstance(choose_engine(model.train(), "auto"), PlainEngine)
        assert isinstance(choose_engine(model, "off"), PlainEngine)
        assert isinstance(choose_engine(model, "on"), PrefixEngine)
    said = [record.message for record in caplog.records]
    assert [m for m in said if "local.prefix_sharing: on" in m] == said[-1:]
    if own is None:
        assert len(said) == 1
        assert "lora_dropout 0.1 would be drawn once" in said[0]
    else:
        assert len(said) == 2
        assert said[0] == f"training draws noise that the model's own config asks for: {own}"
    assert model.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_noise_that_a_config_sets_to_zero_is_none(
    tiny_models: dict[str, Path], architecture: str
) -> None:
    model = load_model(str(tiny_models[architecture]), torch.device("cpu"), torch.float32)
    assert bool(training_noise(model)) == (architecture == "gpt2")  # by GPT-2's own defaults


def test_a_model_that_is_to_share_nothing_is_told_nothing_of_sharing(
    letter_models: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=5, hidden_size=32, n_layer=2, n_head=4))
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(letter_models["llama"]).save_pretrained(tmp_path)
    settings = LocalSettings(model=str(tmp_path), device="cpu", prefix_sharing="off")
    backend = LocalBackend(settings)
    scored = ScoringQuery(id="q", prompt="ab", candidates={"a": "a", "b": "b"})
    assert list(backend.score(str(tmp_path), [scored]))
    assert caplog.records == []
    for _ in range(2):
        asked = GenerationQuery(id="q", prompt="ab", max_tokens=2)
        assert list(backend.generate(str(tmp_path), [asked]))
    (record,) = caplog.records
    assert record.message.startswith(
        "keys and values are not kept: BloomForCausalLM takes no masks"
    )


def test_a_router_that_is_to_show_its_logits_shares_prefixes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    config = MixtralConfig(**SHAPE, num_local_experts=2, output_router_logits=True)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), torch.device("cpu"), torch.float32)
    assert isinstance(choose_engine(model, "auto"), PrefixEngine)
    assert isinstance(choose_engine(model.train(), "auto"), PrefixEngine)
    assert caplog.records == []
