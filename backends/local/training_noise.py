"""What a model draws in training mode: dropout, skipped layers, a router's jitter."""

import re
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

LORA_DROPOUT = "lora_dropout"
"""The adapter's, which a setting of ours asks for."""

_NOISE = re.compile("drop|jitter")


def training_noise(model: PreTrainedModel) -> dict[str, float]:
    """The name of each kind of noise, as the model calls it, and the most of it that a layer draws."""
    noise: dict[str, float] = {}
    for name, amount in _of_modules(model):
        noise[name] = max(amount, noise.get(name, 0.0))
    return noise


def _of_modules(model: PreTrainedModel) -> Iterator[tuple[str, float]]:
    # Some models ask their config at every step rather than keep it in a layer.
    in_attention = getattr(model.config.get_text_config(), "attention_dropout", None)
    if in_attention:
        yield "attention_dropout", in_attention
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            if module.p > 0:
                yield LORA_DROPOUT if LORA_DROPOUT in path else _last_name(path), module.p
            continue
        for name, value in vars(module).items():
            if _NOISE.search(name) and isinstance(value, float) and value > 0:
                yield name, value


def _last_name(path: str) -> str:
    """Of a module, or of what it stands in where it has a number alone."""
    return next((part for part in reversed(path.split(".")) if not part.isdigit()), "dropout")
