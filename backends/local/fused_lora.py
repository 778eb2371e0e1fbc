"""LoRA's linear layers in as few operations as they need.

PEFT's own forward (peft/tuners/lora/layer.py, Linear.forward) casts the input to the adapter's float32
and back, and adds the two products in a pass of its own; under autocast that was a tenth of a training
step of the embedded model. The result is the same.
"""

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable


def fuse_lora(model: PeftModel) -> None:
    """Replaces the forward of every plain LoRA layer; others (dropout, DoRA, Conv1D) keep their own."""
    for module in model.modules():
        if isinstance(module, Linear) and _is_plain(module):
            module.forward = _fused_forward(module)


def _is_plain(module: Linear) -> bool:
    if type(module.base_layer) is not torch.nn.Linear or len(module.active_adapters) != 1:
        return False
    adapter = module.active_adapters[0]
    return (
        adapter in module.lora_A
        and adapter not in module.lora_variant
        and module.base_layer.bias is None
        and module.lora_B[adapter].bias is None
        and isinstance(module.lora_dropout[adapter], torch.nn.Identity)
    )


def _fused_forward(module: Linear) -> Any:  # noqa: ANN401 - assigned to a module's forward
    adapter = module.active_adapters[0]
    base = module.base_layer.weight
    a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
    scaling = module.scaling[adapter]
    return lambda x: _LoraLinear.apply(x, base, a, b, scaling)


class _LoraLinear(torch.autograd.Function):
    """x W^T + s (x A^T) B^T for frozen W (out, in), A (rank, in), B (out, rank), scalar s."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        base: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        # The master weights stay float32; the multiplications are done in the model's dtype.
        a, b = a.to(x.dtype), (b * scaling).to(x.dtype)
        reduced = rows @ a.T
        ctx.save_for_backward(rows, base, a, b, reduced)
        ctx.scaling = scaling
        return (rows @ base.T).addmm_(reduced, b.T).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        gradient: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        rows, base, a, b, reduced = ctx.saved_tensors
        out = gradient.reshape(-1, gradient.shape[-1])
        through_b = out @ b
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = (out @ base).addmm_(through_b, a).view(*gradient.shape[:-1], -1)
        of_a = (through_b.T @ rows).float()
        of_b = (out.T @ reduced).float() * ctx.scaling
        return of_input, None, of_a, of_b, None
