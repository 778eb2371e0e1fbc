"""Which device and number format to compute in."""

import torch

from backends.errors import SettingsError
from backends.local.settings import DtypeName

_BY_PREFERENCE = ("cuda", "mps", "cpu")


def is_here(device: torch.device) -> bool:
    """Whether this machine has it."""
    return {"cuda": torch.cuda, "mps": torch.backends.mps, "cpu": torch.cpu}[
        device.type
    ].is_available()


def choose_device(name: str, *, elsewhere: bool = False) -> torch.device:
    """The device of that name, which may be `elsewhere`; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        SettingsError: this machine has no such device.
    """
    if name == "auto":
        return next(one for one in map(torch.device, _BY_PREFERENCE) if is_here(one))
    if not elsewhere and not is_here(torch.device(name)):
        raise SettingsError(f"local.device: '{name}' is not available on this machine; try 'auto'")
    return torch.device(name)


def choose_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """The number format of that name; "auto" is bfloat16 where the hardware computes in it."""
    if name == "auto":
        return torch.bfloat16 if _computes_in_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # torch offers no public question for this; emulated bfloat16 is slower than float32.
        return any(
            getattr(torch.cpu, question, lambda: False)()
            for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    return False


def describe_device(device: torch.device) -> str:
    """The device as a person would name it, e.g. "cpu (2 threads)"."""
    if device.type == "cuda" and is_here(device):
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type
