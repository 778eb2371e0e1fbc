"""Gradient checkpointing: activations are computed again in the backward pass, layer by layer.

A layer keeps its input alone (Chen et al. 2016, https://arxiv.org/abs/1604.06174).
"""

from functools import partial

from transformers import PreTrainedModel

from backends.errors import SettingsError
from backends.local.tree_attention import attention_twice


def check_recomputing(model: PreTrainedModel) -> None:
    """Raises SettingsError: the architecture has no layers that can be computed again."""
    if not model.supports_gradient_checkpointing:
        raise SettingsError(
            f"local.training.gradient_checkpointing: {type(model).__name__} can't; use false"
        )


def recompute_activations(model: PreTrainedModel) -> None:
    """From now on, in training mode. Raises as `check_recomputing`."""
    check_recomputing(model)
    # The older name warns where the newer one is there.
    newer = getattr(model, "activation_checkpointing_enable", None)
    enable = newer or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": partial(attention_twice, model)})
    model.disable_input_require_grads()  # which checkpoints that are reentrant would need
