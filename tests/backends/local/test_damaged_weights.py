"""Weights that are not what they should be are refused, never taken for a model that answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from backends.data import GenerationQuery, ScoringQuery, SearchQuery
from backends.errors import ModelError
from backends.local.adapters import load_adapter, new_adapter, save_adapter
from backends.local.backend import LocalBackend
from backends.local.models import load_model
from backends.local.settings import LocalSettings, LoraSettings, PrefixSharing

CPU = torch.device("cpu")
SCORED = ScoringQuery(id="q", prompt="What is", candidates={"a": " it", "b": " that"})


def change(
    weights: Path, how: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    save_file(how(load_file(weights)), weights, metadata={"format": "pt"})


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    base = load_model(str(tiny_model), CPU, torch.float32)
    save_adapter(new_adapter(base, LoraSettings(rank=2)), tmp_path / "adapter", {})
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda keys: {k.replace("base_model.model", "model"): v for k, v in keys.items()},
            r"28 keys are missing \(first: base_model\.model\..*lora_A\.weight\), 28 keys are of no layer",
        ),
        (
            lambda keys: {k.replace("q_proj", "query"): v for k, v in keys.items()},
            r"4 keys are missing \(first: .*q_proj.*\), 4 keys are of no layer of it \(first: .*query",
        ),
        (lambda keys: dict(list(keys.items())[::2]), "14 keys are missing"),
        (lambda _: {"other": torch.zeros(1)}, r"28 keys are missing .*1 keys .*\(first: other\)"),
        (
            lambda keys: keys | {next(iter(keys)): next(iter(keys.values())) * torch.nan},
            r"'base_model\.model\..*' has NaN or infinite values",
        ),
    ],
    ids=["renamed", "one module", "half", "none", "nan"],
)
def test_an_adapter_that_is_not_whole_is_refused(
    tiny_model: Path,
    adapter: Path,
    damage: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
) -> None:
    change(adapter / "adapter_model.safetensors", damage)
    backend = LocalBackend(LocalSettings(model=str(tiny_model), device="cpu"))
    with pytest.raises(ModelError, match=rf"adapter_model\.safetensors: .*{message}"):
        list(backend.score(str(adapter), [SCORED]))
    base = load_model(str(tiny_model), CPU, torch.float32)
    with pytest.raises(ModelError, match=message):
        load_adapter(base, adapter, trainable=True)


def test_a_second_adapter_is_looked_at_as_closely(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    change(broken / "adapter_model.safetensors", lambda keys: dict(list(keys.items())[1:]))
    base = load_model(str(tiny_model), CPU, torch.float32)
    loaded = load_adapter(base, adapter, trainable=False)
    with pytest.raises(ModelError, match="1 keys are missing"):
        load_adapter(loaded, broken, trainable=False, name="adapter2")


def test_modules_trained_whole_must_be_there(tiny_model: Path, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["modules_to_save"] = ["lm_head"]
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    base = load_model(str(tiny_model), CPU, torch.float32)
    with pytest.raises(ModelError, match=r"does not fit the base model .*lm_head"):
        load_adapter(base, adapter, trainable=False)


def test_prompt_tuning_is_not_taken_for_the_base_model(tiny_model: Path, tmp_path: Path) -> None:
    base = load_model(str(tiny_model), CPU, torch.float32)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(base, config).save_pretrained(str(tmp_path / "prompt"))
    base = load_model(str(tiny_model), CPU, torch.float32)
    with pytest.raises(ModelError, match="PROMPT_TUNING can't be used; give a LoRA adapter"):
        load_adapter(base, tmp_path / "prompt", trainable=False)


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_a_model_that_computes_nan_is_one_line(
    tiny_model: Path, tmp_path: Path, sharing: PrefixSharing
) -> None:
    broken = tmp_path / "model"
    shutil.copytree(tiny_model, broken)
    change(
        broken / "model.safetensors",
        lambda keys: keys | {"model.norm.weight": keys["model.norm.weight"] * torch.nan},
    )
    settings = LocalSettings(model=str(broken), device="cpu", prefix_sharing=sharing)
    backend = LocalBackend(settings)
    with pytest.raises(ModelError, match="computes NaN in place of probabilities"):
        list(backend.score(str(broken), [SCORED]))
    with pytest.raises(ModelError, match="computes NaN in place of probabilities"):
        list(backend.generate(str(broken), [GenerationQuery(id="q", prompt="a", max_tokens=2)]))
    search = SearchQuery(id="q", prompt="a", max_tokens=2, min_probability=0.5)
    with pytest.raises(ModelError, match="computes NaN in place of probabilities"):
        list(backend.search(str(broken), [search]))
