"""LoRA's layers as they are run, against PEFT's own forward."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from backends.local.fused_lora import fuse_lora

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


def adapted(make: Callable[[], PreTrainedModel], dtype: torch.dtype, **lora: object) -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **lora)  # pyright: ignore
    model = get_peft_model(make().to(dtype), config)  # pyright: ignore
    assert isinstance(model, PeftModel)
    for name, parameter in model.named_parameters():
        if "bias" in name or "lora_B" in name:  # these start at 0, where they show nothing
            nn.init.normal_(parameter, std=0.2)
    return model.train()


def n_fused(model: PeftModel) -> int:
    return sum("forward" in module.__dict__ for module in model.modules())


def run(model: PeftModel, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    inputs = torch.arange(24).reshape(2, 12)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(input_ids=inputs).logits
    nn.functional.cross_entropy(logits.float().flatten(0, 1), inputs.flatten()).backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),  # has biases
        lambda: PhiForCausalLM(PhiConfig(**SHAPE)),  # has biases and layer norms
    ],
    ids=["llama", "qwen2", "phi"],
)
def test_outputs_and_gradients_are_those_of_pefts_own_layers(
    make: Callable[[], PreTrainedModel], dtype: torch.dtype, tolerance: float
) -> None:
    model = adapted(make, dtype)
    expected, their_gradients = run(model, dtype)
    fuse_lora(model)
    assert n_fused(model) == sum("lora_A.default" in name for name, _ in model.named_parameters())
    logits, gradients = run(model, dtype)
    assert (logits - expected).norm() <= tolerance * expected.norm()
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        assert gradients[name].dtype == torch.float32
        assert (gradients[name] - gradient).norm() <= 2 * tolerance * gradient.norm(), name


def test_a_layer_norms_float32_output_is_taken() -> None:
    # As autocast gives it on CUDA, where the layer's own weights are bfloat16.
    layer = nn.ModuleDict({"linear": nn.Linear(8, 6, dtype=torch.bfloat16)})
    model = get_peft_model(layer, LoraConfig(r=2, target_modules=["linear"]))  # pyright: ignore
    assert isinstance(model, PeftModel)
    fuse_lora(model)
    inputs = torch.randn(3, 8, requires_grad=True)
    output = model.base_model.model["linear"](inputs)  # pyright: ignore
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert inputs.grad is not None
    assert inputs.grad.dtype == torch.float32


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_other_kinds_of_layers_keep_pefts_forward(lora: dict[str, object]) -> None:
    model = adapted(lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)), torch.float32, **lora)
    fuse_lora(model)
    assert n_fused(model) == 0
