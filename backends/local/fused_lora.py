"""LoRA's linear layers in as few operations as they need.

PEFT's own forward (peft/tuners/lora/layer.py, Linear.forward) casts the input to the adapter's float32
and back, and adds the two products in a pass of its own; under autocast that was a tenth of a training
step of the embedded model. The result is the same. Rows may have an adapter each: several trainings in one
pass (one_pass.py).
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from torch.autograd.function import once_differentiable
from torch.nn.functional import grouped_mm, linear, pad

_WIDTHS = 8
"""Whose multiples grouped products take: 16 bytes of the narrowest dtype."""


class MixedRowsError(RuntimeError):
    """Not every layer with an adapter can take rows that have an adapter each."""


_counts: ContextVar[Sequence[int]] = ContextVar("_counts", default=())


@contextmanager
def rows_of_adapters(counts: Sequence[int]) -> Iterator[None]:
    """Within this block the first `counts[0]` rows of a pass are the first active adapter's, and so on.

    Where a single adapter is active, all are its.

    Raises:
        MixedRowsError: a layer is given another number of rows, as a mixture's experts are, or it is of a
            width that grouped products don't take.
    """
    token = _counts.set(counts)
    try:
        yield
    finally:
        _counts.reset(token)


def fuse_lora(model: PeftModel) -> None:
    """Replaces the forward of every plain LoRA layer; others (dropout, DoRA, Conv1D) keep their own.

    Which adapter is active is asked at every call, and one that is not plain goes PEFT's way.
    """
    for module in model.modules():
        if isinstance(module, Linear) and "forward" not in module.__dict__ and _is_plain(module):
            module.forward = _fused_forward(module)


def is_fused(model: PeftModel) -> bool:
    """Whether that was done for every layer with an adapter."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return all("forward" in module.__dict__ for module in layers)


def _is_plain(module: Linear) -> bool:
    if type(module.base_layer) is not torch.nn.Linear or module.disable_adapters:
        return False
    return len(module.active_adapters) == max(1, len(_counts.get())) and all(
        adapter in module.lora_A
        and adapter not in module.lora_variant
        and module.lora_B[adapter].bias is None
        and isinstance(module.lora_dropout[adapter], torch.nn.Identity)
        for adapter in module.active_adapters
    )


def _fused_forward(module: Linear) -> Any:  # noqa: ANN401 - assigned to a module's forward
    pefts = module.forward

    def forward(x: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        if not _is_plain(module):
            return pefts(x, *others, **options)
        rows = x.reshape(-1, x.shape[-1])
        # Of a sharded model they are other tensors in every pass.
        base, bias = module.base_layer.weight, module.base_layer.bias
        several = len(module.active_adapters) > 1
        a, b, ends = _of_several(module, rows) if several else _of_one(module)
        scaling = module.scaling[module.active_adapters[0]]
        result = _LoraLinear.apply(rows, base, bias, a, b, ends, scaling)
        # Out here: some models (Gemma 3n) change it in place, which autograd forbids of a view made inside.
        return result.view(*x.shape[:-1], result.shape[-1])

    return forward


_Adapters = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""A, B and where the rows of each adapter end; as `_LoraLinear` takes them."""


def _of_one(module: Linear) -> _Adapters:
    adapter = module.active_adapters[0]
    return module.lora_A[adapter].weight, module.lora_B[adapter].weight, None  # pyright: ignore[reportReturnType]


def _of_several(module: Linear, rows: torch.Tensor) -> _Adapters:
    counts, base = _counts.get(), module.base_layer
    assert isinstance(base, torch.nn.Linear)
    if sum(counts) != len(rows) or any(width % _WIDTHS for width in base.weight.shape):
        raise MixedRowsError
    ends = torch.tensor(list(itertools.accumulate(counts)), dtype=torch.int32, device=rows.device)
    a, b = (
        torch.stack([of.get_parameter(f"{adapter}.weight") for adapter in module.active_adapters])
        for of in (module.lora_A, module.lora_B)
    )
    missing = -a.shape[1] % _WIDTHS
    return pad(a, (0, 0, 0, missing)), pad(b, (0, missing)), ends


class _LoraLinear(torch.autograd.Function):
    """x W^T + c + s (x A^T) B^T for frozen W (out, in) and c (out,), A (rank, in), B (out, rank).

    x is (rows, in) and the result (rows, out). With `ends` (groups,) the rows up to ends[g], from where the
    group before ends, have the g-th of A (groups, rank, in) and B (groups, out, rank); the products of all
    groups are one operation.
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
        ends: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        # Under autocast some layers' outputs are float32.
        rows = x.to(base.dtype)
        a, b = a.to(base.dtype), (b * scaling).to(base.dtype)
        reduced = _product(rows, a.mT, ends)
        ctx.save_for_backward(rows, base, a, b, reduced, ends)
        ctx.scaling, ctx.input_dtype = scaling, x.dtype
        return _add_product(linear(rows, base, bias), reduced, b.mT, ends)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        gradient: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        rows, base, a, b, reduced, ends = ctx.saved_tensors
        if ends is not None:
            gradient = gradient.contiguous()
        through_b = _product(gradient, b, ends)
        of_input = None
        if ctx.needs_input_grad[0]:
            of_input = _add_product(gradient @ base, through_b, a, ends).to(ctx.input_dtype)
        of_a = _product(through_b.T, rows, ends).float()
        of_b = _product(gradient.T, reduced, ends).float() * ctx.scaling
        return of_input, None, None, of_a, of_b, None, None


def _product(one: torch.Tensor, other: torch.Tensor, ends: torch.Tensor | None) -> torch.Tensor:
    return one @ other if ends is None else grouped_mm(one, other, offs=ends)


def _add_product(
    to: torch.Tensor, one: torch.Tensor, other: torch.Tensor, ends: torch.Tensor | None
) -> torch.Tensor:
    """In place."""
    return to.addmm_(one, other) if ends is None else to.add_(grouped_mm(one, other, offs=ends))
