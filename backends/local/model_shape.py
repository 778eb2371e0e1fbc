"""What a model's sizes are, and what its weights take, told without any weights."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from backends.local.settings import LocalSettings

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in four bits: it, a byte for each block of 64, and a float32 for each 256 of those (QLoRA,
https://arxiv.org/abs/2305.14314, section 3, double quantization)."""


@dataclass(frozen=True)
class ModelShape:
    """Numbers of parameters, and widths."""

    parameters: int
    head: int
    """Of the projection to the vocabulary, which only some positions need."""
    body: int
    """Without embeddings and projection."""
    adapter: int
    quantizable: int
    """Of linear layers other than the projection."""
    largest: int
    """Of the largest of them."""
    layers: int
    width: int
    key_width: int

    @classmethod
    def of(cls, model: PreTrainedModel, settings: LocalSettings) -> "ModelShape":
        """Of a model that may be empty (`models.empty_model`)."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
        parameters = sum(parameter.numel() for parameter in model.parameters())
        head = config.vocab_size * config.hidden_size
        tied = bool(getattr(config, "tie_word_embeddings", False))
        projection = model.get_output_embeddings()
        linear = [
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, torch.nn.Linear) and module is not projection
        ]
        return cls(
            parameters=parameters,
            head=head,
            body=parameters - head * (1 if tied else 2),
            adapter=_adapter_parameters(model, settings),
            quantizable=sum(linear),
            largest=max(linear, default=0),
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            key_width=(getattr(config, "num_key_value_heads", None) or heads) * head_width,
        )

    def weight_bytes(
        self, itemsize: int, settings: LocalSettings, processes: int, device: torch.device
    ) -> int:
        """Of the base model on the device, in one process that runs it in numbers of that many bytes."""
        if settings.quantize == "nf4":
            others = self.parameters - self.quantizable + self.largest  # one is unpacked at a time
            return int(self.quantizable * _NF4_BYTES) + others * itemsize
        if settings.shard == "fsdp":
            # Gathered while it is computed: what is no layer, a layer, and the next one.
            gathered = self.parameters - self.body + 2 * self.body // self.layers
            is_beside = settings.offload == "cpu" and device.type != "cpu"
            kept = 0 if is_beside else self.parameters // processes
            return (kept + gathered) * itemsize
        return self.parameters * itemsize


def _adapter_parameters(model: PreTrainedModel, settings: LocalSettings) -> int:
    targets = settings.lora.target_modules
    head = model.get_output_embeddings()
    sides = 0
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
            continue
        if targets == "all-linear":
            chosen = not isinstance(module, torch.nn.Embedding) and module is not head
        else:
            chosen = name.endswith(targets)
        sides += sum(weight.shape) if chosen else 0
    return settings.lora.rank * sides
