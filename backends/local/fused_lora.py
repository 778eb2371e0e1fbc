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
    """Replaces the forward of every plain LoRA layer; others (dropout, DoRA, Conv1D) keep their own.

    Which adapter is active is asked at every call, and one that is not plain goes PEFT's way.
    """
    for module in model.modules():
        if isinstance(module, Linear) and "forward" not in module.__dict__ and _is_plain(module):
            module.forward = _fused_forward(module)


def _is_plain(module: Linear) -> bool:
    if type(module.base_layer) is not torch.nn.Linear or len(module.active_adapters) != 1:
        return False
    adapter = module.active_adapters[0]
    return (
        not module.disable_adapters
        and adapter in module.lora_A
        and adapter not in module.lora_variant
        and module.lora_B[adapter].bias is None
        and isinstance(module.lora_dropout[adapter], torch.nn.Identity)
    )


def _fused_forward(module: Linear) -> Any:  # noqa: ANN401 - assigned to a module's forward
    pefts = module.forward

    def forward(x: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        if not _is_plain(module):
            return pefts(x, *others, **options)
        adapter = module.active_adapters[0]
        a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
        # Of a sharded model they are other tensors in every pass.
        base, bias = module.base_layer.weight, module.base_layer.bias
        rows = x.reshape(-1, x.shape[-1])
        result = _LoraLinear.apply(rows, base, bias, a, b, module.scaling[adapter])
        # Out here: some models (Gemma 3n) change it in place, which autograd forbids of a view made inside.
        return result.view(*x.shape[:-1], -1)

    return forward


class _LoraLinear(torch.autograd.Function):
    """x W^T + c + s (x A^T) B^T for frozen W (out, in) and c (out,), A (rank, in), B (out, rank).

    x is (rows, in) and the result (rows, out).
    Multiplications are done in W's dtype, and the result has it; A and B may be kept in a wider one.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        x: torch.Tensor,
        base: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        # Under autocast some layers' outputs are float32.
        rows = x.to(base.dtype)
        a, b = a.to(base.dtype), (b * scaling).to(base.dtype)
        reduced = rows @ a.T
        ctx.save_for_backward(rows, base, a, b, reduced)
        ctx.scaling, ctx.input_dtype = scaling, x.dtype
        return torch.nn.functional.linear(rows, base, bias).addmm_(reduced, b.T)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        gradient: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        rows, base, a, b, reduced = ctx.saved_tensors
        through_b = gradient @ b
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = (gradient @ base).addmm_(through_b, a).to(ctx.input_dtype)
        of_a = (through_b.T @ rows).float()
        of_b = (gradient.T @ reduced).float() * ctx.scaling
        return of_input, None, None, of_a, of_b, None
