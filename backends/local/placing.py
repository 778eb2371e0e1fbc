"""How a model lies in memory: whole on one device, in parts over several processes, in four bits."""

import importlib.util

import torch
from transformers import PreTrainedModel

from backends.errors import SettingsError
from backends.local.models import load_model
from backends.local.settings import LocalSettings
from backends.local.sharding import sharded


def n_processes(settings: LocalSettings, device: torch.device) -> int:
    """How many processes answer queries between them, and train together where the model is sharded."""
    if settings.processes != "auto":
        return settings.processes
    return torch.cuda.device_count() if settings.shard == "fsdp" and device.type == "cuda" else 1


def placed(settings: LocalSettings, device: torch.device) -> dict[str, str | int]:
    """How the base model lies in memory, where it is not whole on one device."""
    chosen = {
        "quantize": settings.quantize,
        "shard": settings.shard,
        "offload": settings.offload,
    }
    count = n_processes(settings, device)
    others = {"processes": count} if count > 1 else {}
    return {key: value for key, value in chosen.items() if value != "none"} | others


def check_placing(settings: LocalSettings, device: torch.device) -> None:
    """Refuses what can't be done here.

    Raises:
        SettingsError: settings that don't go together, or not with this machine.
    """
    if settings.quantize != "none":
        _check_quantized(settings, device)
    if settings.one_pass:
        _check_one_pass(settings)
    count = n_processes(settings, device)
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise SettingsError(
            f"local.processes: {count} are more than this machine's GPUs ({torch.cuda.device_count()})"
        )
    if settings.shard == "none":
        if settings.offload != "none":
            raise SettingsError(
                "local.offload: cpu goes with local.shard: fsdp alone, whose parts it keeps in memory; "
                "set that, or use none"
            )
        return
    if device.type not in ("cuda", "cpu"):
        raise SettingsError(
            f"local.shard: fsdp works on cuda and cpu, not on {device.type}; use none"
        )
    if count < 2:
        raise SettingsError(
            "local.processes: with local.shard: fsdp, say over how many the model is divided (2 or more; "
            "auto is one a GPU)"
        )
    if settings.lora.dropout > 0:
        raise SettingsError(
            f"local.lora.dropout: {settings.lora.dropout:g} does not go with local.shard: fsdp, where each "
            "process would draw its own; set it to 0"
        )


def _check_quantized(settings: LocalSettings, device: torch.device) -> None:
    if settings.shard != "none":
        raise SettingsError(
            "local.quantize: nf4 does not go with local.shard: fsdp; set one of them to none"
        )
    if device.type not in ("cuda", "cpu"):
        raise SettingsError(
            f"local.quantize: nf4 works on cuda and cpu, not on {device.type}; use none"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError("local.quantize: nf4 needs bitsandbytes: pip install 'kaarel-bet[nf4]'")


def _check_one_pass(settings: LocalSettings) -> None:
    others = {
        "local.shard": settings.shard if settings.shard != "none" else None,
        "local.lora.dropout": settings.lora.dropout or None,
        "local.prefix_sharing": "off" if settings.prefix_sharing == "off" else None,
        "local.training.gradient_checkpointing": settings.training.gradient_checkpointing or None,
    }
    for key, value in others.items():
        if value is not None:
            chosen = f"{value:g}" if isinstance(value, float) else str(value).lower()
            raise SettingsError(
                f"local.one_pass: trainings are not computed in one pass with {key}: {chosen}; change "
                "one of them"
            )


def open_base(
    settings: LocalSettings, location: str, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """The base model in evaluation mode, as the settings have it.

    Raises:
        ModelError: it can't be had.
        SettingsError: it can't be sharded.
    """
    if settings.shard == "none":
        return load_model(location, device, dtype, settings.quantize)
    return sharded(
        lambda: load_model(location, torch.device("cpu"), dtype),
        device,
        offload=settings.offload == "cpu",
    )
