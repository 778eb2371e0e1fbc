"""LoRA adapters: made, loaded and saved as PEFT's own directories."""

import hashlib
import json
import warnings
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import PreTrainedModel

from backends import atomic
from backends.errors import ModelError, SettingsError
from backends.local.fused_lora import fuse_lora
from backends.local.models import first_line
from backends.local.settings import LoraSettings

ADAPTER_WEIGHTS = "adapter_model.safetensors"

# peft 0.21 asks transformers 5 by an old name on every adapter; nothing a user could act on.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def new_adapter(base: PreTrainedModel, lora: LoraSettings) -> PeftModel:
    """The base model with a fresh adapter to train; its weights are drawn from torch's generator.

    Raises:
        SettingsError: the target modules are not in the model.
    """
    targets = lora.target_modules
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - fractions work as well
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        raise SettingsError(f"local.lora.target_modules: {first_line(error)}") from error
    assert isinstance(model, PeftModel)
    fuse_lora(model)
    return model


def load_adapter(
    base: PreTrainedModel | PeftModel, adapter: Path, *, trainable: bool, name: str = "default"
) -> PeftModel:
    """The base model with the adapter of that directory; one that has others is given one more.

    Raises:
        ModelError: the directory holds no adapter that fits the base model.
    """
    # PEFT would look for missing files on the hub, and take weights that are a pickle.
    for file in ("adapter_config.json", ADAPTER_WEIGHTS):
        if not (adapter / file).exists():
            raise ModelError(f"{adapter}: no adapter there (no {file})")
    try:
        if isinstance(base, PeftModel):
            base.load_adapter(str(adapter), name, is_trainable=trainable)
            return base
        model = PeftModel.from_pretrained(base, str(adapter), name, is_trainable=trainable)
    except (ValueError, RuntimeError, OSError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{adapter}: does not fit the base model ({first_line(error)})") from error
    fuse_lora(model)
    return model


def adapter_content(adapter: Path) -> dict[str, object]:
    """What tells an adapter from any other: its weights, and how they are used.

    Raises:
        ModelError: the directory holds no adapter.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_bytes())
        with (adapter / ADAPTER_WEIGHTS).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter}: no adapter there ({first_line(error)})") from error
    used = {key: config.get(key) for key in ("r", "lora_alpha", "lora_dropout")}
    return {"weights": weights, **used}


def base_of(model: PeftModel) -> PreTrainedModel:
    """The transformers model inside, its adapter in place."""
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    return base


def save_adapter(model: PeftModel, target: Path, extra: dict[str, str]) -> None:
    """Puts the adapter's directory in place, whole or not at all, with extra text files in it.

    Raises:
        OSError: it can't be written; nothing of it is left then.
    """
    try:
        with atomic.directory(target) as working:
            model.save_pretrained(str(working))
            for name, text in extra.items():
                (working / name).write_text(text)
    except SafetensorError as error:
        raise OSError(f"{target}: {error}") from error
