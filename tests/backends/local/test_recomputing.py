"""Gradient checkpointing: the same loss and gradients, by less memory."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from backends.errors import SettingsError
from backends.local.adapters import base_of, new_adapter
from backends.local.costs import Costs
from backends.local.engine import choose_engine
from backends.local.models import empty_model, load_model, locate
from backends.local.objectives import CrossEntropy, rounding
from backends.local.prefix_tree import tree_size
from backends.local.recomputing import check_recomputing, recompute_activations
from backends.local.sequences import TokenSequence
from backends.local.settings import LocalSettings, LoraSettings, PrefixSharing, TrainingSettings
from backends.local.sharding import layers_of
from tests.models import ARCHITECTURES, EMBEDDED

CPU = torch.device("cpu")
STEM = list(range(100, 130))
SEQUENCES = [
    TokenSequence([*STEM, *range(n, n + length)], list(range(31, 30 + length)))
    for n, length in ((200, 20), (300, 5), (400, 12))
]


def adapted(location: str, dtype: torch.dtype) -> PeftModel:
    torch.manual_seed(0)
    model = new_adapter(load_model(location, CPU, dtype), LoraSettings(rank=4, alpha=8))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def loss_and_gradients(
    model: PeftModel, sharing: PrefixSharing, dtype: torch.dtype
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    engine = choose_engine(base_of(model.train()), sharing)
    torch.manual_seed(0)
    with rounding(CPU, dtype):
        loss = CrossEntropy().loss(SEQUENCES, engine.log_probabilities(SEQUENCES)).summed
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("sharing", ["on", "off"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_of_activations_that_were_kept(
    tiny_models: dict[str, Path], architecture: str, sharing: PrefixSharing, dtype: torch.dtype
) -> None:
    model = adapted(str(tiny_models[architecture]), dtype)
    base = base_of(model)
    before = base.config._attn_implementation
    passes: list[bool] = []
    (layer, *_) = layers_of(base)
    next(layer.children()).register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    kept, wanted = loss_and_gradients(model, sharing, dtype)
    assert sum(passes) == 1
    recompute_activations(base)
    recomputed, found = loss_and_gradients(model, sharing, dtype)
    assert sum(passes) == 1 + 2
    assert recomputed == kept
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient), name
    assert base.config._attn_implementation == before


def test_less_is_kept_for_the_backward_pass_and_the_estimate_knows_how_much() -> None:
    model = adapted(locate(EMBEDDED), torch.float32)
    kept = saved_bytes(model)
    recompute_activations(base_of(model))
    recomputed = saved_bytes(model)
    assert recomputed < kept / 4
    assert kept < estimated_bytes(recomputing=False) < 1.5 * kept
    # What a layer keeps while it is computed again is not held on to yet.
    assert recomputed < estimated_bytes(recomputing=True) < kept / 3


def estimated_bytes(*, recomputing: bool) -> int:
    """Of activations alone."""
    training = TrainingSettings(gradient_checkpointing=recomputing)
    costs = Costs(
        LocalSettings(training=training),
        locate(EMBEDDED),
        CPU,
        training=torch.float32,
        scoring=torch.float32,
    )
    n_targets = sum(len(sequence.targets) for sequence in SEQUENCES)
    return costs._training_bytes(tree_size(SEQUENCES), n_targets) - costs._training_bytes(0, 0)


def saved_bytes(model: PeftModel) -> int:
    """What autograd holds on to once the loss is computed, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    engine = choose_engine(base_of(model.train()), "on")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        CrossEntropy().loss(SEQUENCES, engine.log_probabilities(SEQUENCES))
    return sum(seen.values())


def test_a_model_that_can_not_is_refused(tiny_model: Path) -> None:
    model = empty_model(str(tiny_model))
    model.supports_gradient_checkpointing = False
    with pytest.raises(
        SettingsError, match=r"^local\.training\.gradient_checkpointing: LlamaForCausalLM can't"
    ):
        check_recomputing(model)
