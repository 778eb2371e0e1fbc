"""A model's weights in equal parts over several processes, by torch's FSDP2.

Each process keeps its part of every layer, and gathers a layer whole while it is computed. Only the base
model's weights are in parts: adapters come on top of it, the same in each process, so that they are made,
trained, saved and taken up as if there were one. (https://arxiv.org/abs/2304.11277)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from backends.errors import SettingsError

Item = TypeVar("Item")


def is_shared() -> bool:
    """Whether this process is one of several that have a model in common."""
    return distributed.is_initialized()


def rank() -> int:
    """Which of them this process is, from 0."""
    return distributed.get_rank() if is_shared() else 0


def n_ranks() -> int:
    """How many they are."""
    return distributed.get_world_size() if is_shared() else 1


def layers_of(model: PreTrainedModel) -> list[torch.nn.Module]:
    """What is gathered, and can be computed again, one at a time.

    Raises:
        SettingsError: the architecture does not say.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise SettingsError(
            f"local.shard: {type(model).__name__} does not say what its layers are; use none"
        )
    return list[torch.nn.Module](layers)


def sharded(
    load: Callable[[], PreTrainedModel], device: torch.device, *, offload: bool = False
) -> PreTrainedModel:
    """Of a model that `load` puts on the CPU, this process's part, on its device. Raises as `layers_of`.

    With `offload` it stays in the CPU's memory, and a layer's comes to the device when it is gathered. The
    processes take turns, so that the machine holds one whole model at a time.
    """
    # From pinned memory a layer comes while the one before it is computed.
    policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
    mesh = init_device_mesh(device.type, (n_ranks(),))
    model = None
    for turn in range(n_ranks()):
        if turn == rank():
            model = load().requires_grad_(requires_grad=False)
            for part in (*layers_of(model), model):
                fully_shard(part, mesh=mesh, offload_policy=policy)
            computing_on(model, device)
        add_up(torch.zeros(()))  # waits for all
    assert model is not None
    # What layers are gathered into is made in the first pass: one in inference mode would make tensors that
    # no gradient may pass.
    with torch.no_grad():
        _compute_a_token(model)
    return model


def computing_on(model: PreTrainedModel, device: torch.device) -> None:
    """Has `model.device` be where it computes; transformers takes where the weights are kept."""
    own = type(model)
    model.__class__ = type(own.__name__, (own,), {"device": device})


def _compute_a_token(model: PreTrainedModel) -> None:
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    model(input_ids=token, use_cache=False)


@contextmanager
def in_step(model: PreTrainedModel) -> Iterator[None]:
    """Within this block processes may ask a sharded model different things, and differently many.

    A layer is gathered from all of them. So one that has nothing left to ask computes a token, whose
    result nobody sees, for as long as another still asks.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    handle = model.register_forward_pre_hook(_tell_of_pass, prepend=True)
    try:
        yield
    finally:
        handle.remove()
    while _tell(asking=False):
        with torch.inference_mode():
            _compute_a_token(model)


def _tell_of_pass(_module: torch.nn.Module, _args: Any) -> None:  # noqa: ANN401
    _tell(asking=True)


def _tell(*, asking: bool) -> bool:
    """Before each pass of all: whether any of them asks something."""
    number = torch.tensor(int(asking))
    distributed.all_reduce(number)
    return bool(number)


def gathered(mine: Sequence[Item]) -> list[Item]:
    """What each process made of its share (`share`), in the order of the whole."""
    if not is_shared():
        return list(mine)
    everyones: list[Any] = [None] * n_ranks()
    distributed.all_gather_object(everyones, list(mine))
    return [item for of_one in everyones for item in of_one]


def share(items: Sequence[Item], number: int, of: int) -> Sequence[Item]:
    """One of so many parts of equal size; neighbours, which have the most in common, stay together."""
    start, stop = (len(items) * n // of for n in (number, number + 1))
    return items[start:stop]


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of what the processes have, in place."""
    if is_shared():
        distributed.all_reduce(tensor)
    return tensor


def add_up_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """The same of gradients; a parameter that no process has a gradient of is left without."""
    if not is_shared():
        return
    device = parameters[0].device
    having = add_up(torch.tensor([float(p.grad is not None) for p in parameters], device=device))
    used = [p for p, n in zip(parameters, having.tolist(), strict=True) if n]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    total = add_up(torch.cat([gradient.flatten() for gradient in gradients]))
    for parameter, part in zip(used, total.split([p.numel() for p in used]), strict=True):
        parameter.grad = part.view_as(parameter)
