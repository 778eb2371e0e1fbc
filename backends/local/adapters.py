"""LoRA adapters: made, loaded and saved as PEFT's own directories."""

import copy
import hashlib
import json
import warnings
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PeftModelForCausalLM,
    get_peft_model,
)
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from backends import atomic
from backends.errors import ModelError, SettingsError
from backends.local.fused_lora import fuse_lora
from backends.local.models import first_line
from backends.local.settings import LoraSettings

ADAPTER_WEIGHTS = "adapter_model.safetensors"
DEFAULT_ADAPTER = "default"
"""What PEFT calls a model's only one."""

# peft 0.21 asks transformers 5 by an old name on every adapter; nothing a user could act on.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def new_adapter(
    base: PreTrainedModel, lora: LoraSettings, name: str = DEFAULT_ADAPTER
) -> PeftModel:
    """The base model with a fresh adapter to train; its weights are drawn from torch's generator.

    Raises:
        SettingsError: the target modules are not in the model, or take no adapter.
    """
    targets = lora.target_modules
    unfit = [name for name, module in _linear_modules(base) if not _gives_one_product(module)]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType] - fractions work as well
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=unfit if unfit and targets == "all-linear" else None,
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(base, config, name)
    except ValueError as error:
        raise SettingsError(f"local.lora.target_modules: {first_line(error)}") from error
    assert isinstance(model, PeftModel)
    _refuse_tied(base, model)
    for name in unfit:
        if isinstance(base.get_submodule(name), LoraLayer):
            raise SettingsError(
                f"local.lora.target_modules: '{name}' is no plain linear layer; leave it out"
            )
    _put_beside_base(model)
    fuse_lora(model)
    return model


def another_adapter(model: PeftModel, name: str) -> PeftModel:
    """The model with one more fresh adapter like those that it has; drawn as if it were the only one."""
    model.add_adapter(name, copy.deepcopy(next(iter(model.peft_config.values()))))
    return model


def _put_beside_base(model: PeftModel) -> None:
    """Adapters have to be where the base model computes; PEFT puts them where its weights are kept."""
    device = base_of(model).device
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            for name in module.adapter_layer_names:
                getattr(module, name).to(device)


def _refuse_tied(base: PreTrainedModel, model: PeftModel) -> None:
    """One matrix can't take what an adapter adds to the embeddings alone, or to the head alone."""
    if not getattr(base.config.get_text_config(), "tie_word_embeddings", False):
        return
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    if any(isinstance(end, LoraLayer) for end in ends):
        raise SettingsError(
            "local.lora.target_modules: this model's embeddings and head (lm_head) are one matrix, which "
            "an adapter can't be merged into; leave both out"
        )


def _linear_modules(base: PreTrainedModel) -> list[tuple[str, torch.nn.Linear]]:
    return [(n, m) for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)]


@torch.no_grad()
def _gives_one_product(module: torch.nn.Linear) -> bool:
    """Not so of some that have a forward of their own: Llama 4's router gives two tensors."""
    if type(module).forward is torch.nn.Linear.forward:
        return True
    try:
        output = module(module.weight.new_zeros(1, module.in_features))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    return isinstance(output, torch.Tensor) and output.shape == (1, module.out_features)


def load_adapter(
    base: PreTrainedModel | PeftModel,
    adapter: Path,
    *,
    trainable: bool,
    name: str = DEFAULT_ADAPTER,
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
        config = PeftConfig.from_pretrained(str(adapter))
        if (
            config.is_prompt_learning
        ):  # what runs is the model inside, which knows nothing of prompts
            raise ModelError(f"{adapter}: {config.peft_type} can't be used; give a LoRA adapter")
        _refuse_nan(adapter / ADAPTER_WEIGHTS)
        if isinstance(base, PeftModel):
            model = base
        else:
            config.inference_mode = not trainable
            model = PeftModelForCausalLM(base, config, name)
        loaded = model.load_adapter(str(adapter), name, is_trainable=trainable)
    except (ValueError, RuntimeError, OSError, TypeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{adapter}: does not fit the base model ({first_line(error)})") from error
    missing = [key.replace(f".{name}", "") for key in loaded.missing_keys]
    _refuse_other_keys(adapter / ADAPTER_WEIGHTS, missing, loaded.unexpected_keys)
    _put_beside_base(model)
    if not isinstance(base, PeftModel):
        fuse_lora(model)
    return model


def _refuse_nan(weights: Path) -> None:
    with safe_open(weights, framework="pt") as file:
        for key in sorted(file.keys()):
            if not file.get_tensor(key).isfinite().all():
                raise ModelError(f"{weights}: '{key}' has NaN or infinite values; train it again")


def _refuse_other_keys(weights: Path, missing: list[str], unexpected: list[str]) -> None:
    """PEFT would leave such a layer as it is in the base model, with a warning at most."""
    problems = [
        f"{len(keys)} keys {problem} (first: {keys[0]})"
        for keys, problem in ((missing, "are missing"), (unexpected, "are of no layer of it"))
        if keys
    ]
    if problems:
        raise ModelError(f"{weights}: does not fit the base model: {', '.join(problems)}")


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


def save_adapter(
    model: PeftModel, target: Path, extra: dict[str, str], name: str = DEFAULT_ADAPTER
) -> None:
    """Puts an adapter's directory in place, whole or not at all, with extra text files in it.

    Raises:
        OSError: it can't be written; nothing of it is left then.
    """
    try:
        with atomic.directory(target) as working:
            model.save_pretrained(str(working), selected_adapters=[name])
            if name != DEFAULT_ADAPTER:  # PEFT gives any other a folder of its own
                for file in (working / name).iterdir():
                    file.replace(working / file.name)
                (working / name).rmdir()
            for file_name, text in extra.items():
                (working / file_name).write_text(text, encoding="utf-8")
    except SafetensorError as error:
        raise OSError(f"{target}: {error}") from error
