"""Models whose layers are unlike others' are trained all the same, and scored as they were trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    Llama4ForCausalLM,
    Llama4TextConfig,
    PreTrainedModel,
)

from backends.data import ScoringQuery, TrainingExample
from backends.errors import SettingsError
from backends.interface import FineTuneJob, Progress
from backends.jsonl import dumps
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings, LoraSettings, PrefixSharing, TrainingSettings

SHAPE: dict[str, Any] = {
    "vocab_size": 5,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def gemma3n() -> PreTrainedModel:
    """Changes what its linear layers give in place; some of its adapters get no gradients."""
    return Gemma3nForCausalLM(
        Gemma3nTextConfig(
            **SHAPE,
            vocab_size_per_layer_input=5,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=0,
            layer_types=["sliding_attention", "full_attention"] * 2,
            activation_sparsity_pattern=[0.0] * 4,
            laurel_rank=4,
            altup_num_inputs=2,
        )
    )


def llama4() -> PreTrainedModel:
    """Its routers are linear layers that give two tensors."""
    return Llama4ForCausalLM(
        Llama4TextConfig(**SHAPE, intermediate_size_mlp=64, num_local_experts=2)
    )


@pytest.fixture(params=[gemma3n, llama4], ids=lambda make: make.__name__)
def location(
    request: pytest.FixtureRequest, letter_models: dict[str, Path], tmp_path: Path
) -> Path:
    torch.manual_seed(0)
    make: Callable[[], PreTrainedModel] = request.param
    model = make()
    model.config.eos_token_id = 0
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(letter_models["llama"]).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def job(directory: Path) -> FineTuneJob:
    directory.mkdir()
    examples = [TrainingExample(prompt=p, completion="ab") for p in ("c", "cd", "d", "dc")]
    (directory / "train.jsonl").write_text("".join(dumps(e) + "\n" for e in examples))
    return FineTuneJob(
        run_id="run",
        name="arm",
        training_file=directory / "train.jsonl",
        validation_file=None,
        loss_on="completion",
        seed=0,
        starts_from=None,
        output=directory / "arm",
    )


def settings(location: Path, sharing: PrefixSharing = "auto", **lora: object) -> LocalSettings:
    return LocalSettings(
        model=str(location),
        device="cpu",
        prefix_sharing=sharing,
        lora=LoraSettings.model_validate({"rank": 4} | lora),
        training=TrainingSettings(epochs=20, batch_size=2, checkpoint_seconds=0.0),
    )


@pytest.mark.parametrize("sharing", ["auto", "off"])
def test_it_learns_and_goes_on_after_a_stop(
    location: Path, tmp_path: Path, sharing: PrefixSharing
) -> None:
    backend = LocalBackend(settings(location, sharing))
    query = ScoringQuery(id="q", prompt="cd", candidates={"a": "ab", "b": "ba"})
    [before] = backend.score(str(location), [query])
    whole = job(tmp_path / "whole")
    tuned = backend.fine_tune(whole, lambda _: None)
    assert tuned.training_curve[-1].train_loss < tuned.training_curve[0].train_loss - 0.3
    [after] = backend.score(tuned.model, [query])
    assert after.candidates["a"].total.low > before.candidates["a"].total.low + 0.3

    def stop(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    stopped = job(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        backend.fine_tune(stopped, stop)
    again = LocalBackend(settings(location, sharing)).fine_tune(stopped, lambda _: None)
    assert again.training_curve == tuned.training_curve


def test_a_layer_that_takes_no_adapter_is_named(location: Path, tmp_path: Path) -> None:
    if "Llama4" not in (location / "config.json").read_text():
        pytest.skip("all of its linear layers do")
    subject = LocalBackend(settings(location, target_modules=("q_proj", "router")))
    with pytest.raises(SettingsError, match=r"target_modules: .*feed_forward\.router' is no plain"):
        subject.fine_tune(job(tmp_path / "arm"), lambda _: None)
