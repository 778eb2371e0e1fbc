"""Finding and loading models: an embedded one, a hub id, a directory or a GGUF file."""

import hashlib
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.errors import ModelError
from backends.local.embedded import embedded_file
from backends.local.gguf_files import BFLOAT16, converted
from backends.local.settings import Quantization

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
huggingface_hub.utils.logging.set_verbosity_error()


def locate(model: str) -> str:
    """What transformers' from_pretrained takes for this model: a directory or a hub id.

    Raises:
        ModelError: an embedded model or a file that is not there, or not a model.
    """
    if model.startswith("embedded:"):
        return str(converted(embedded_file(model.removeprefix("embedded:"))))
    try:
        path = Path(model).expanduser()
    except RuntimeError as error:
        raise ModelError(f"{model}: no such user") from error
    if path.is_dir():
        if not (path / "config.json").exists():
            adapter = (path / "adapter_config.json").exists()
            hint = "it is an adapter: give its base model" if adapter else "it has no config.json"
            raise ModelError(f"{model}: not a model directory ({hint})")
        return str(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{model}: of single files only .gguf can be loaded")
        return str(converted(path))
    if path.is_absolute() or path.suffix == ".gguf" or model.startswith((".", "~")):
        raise ModelError(f"{model}: no such file or directory")
    return model


def load_tokenizer(location: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ModelError where it can't be had."""
    with _translated(location):
        return AutoTokenizer.from_pretrained(location)


def context_length(location: str) -> int | None:
    """How many tokens the model can attend to, None where nothing limits it.

    Raises:
        ModelError: its config can't be had.
    """
    with _translated(location):
        config = AutoConfig.from_pretrained(location).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def content_of(location: str) -> str:
    """What tells the model's weights from any others: their SHA-256, or of the hub their revision.

    Raises:
        ModelError: its config can't be had.
    """
    directory = Path(location)
    if not directory.is_dir():
        with _translated(location):
            return f"{location}@{AutoConfig.from_pretrained(location)._commit_hash}"
    digest = hashlib.sha256()
    weights = set(directory.glob("*.safetensors")) - {_in_bfloat16(location)}
    for path in sorted([directory / "config.json", *weights]):
        with path.open("rb") as file:
            digest.update(
                f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return digest.hexdigest()


def vocabulary_size(location: str) -> int:
    """How many tokens the model gives logits to. Raises ModelError: its config can't be had."""
    with _translated(location):
        return AutoConfig.from_pretrained(location).get_text_config().vocab_size


def empty_model(location: str) -> PreTrainedModel:
    """The model without weights, which takes no memory. Raises ModelError: its config can't be had."""
    with _translated(location), torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(location))


def load_model(
    location: str,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantization = "none",
) -> PreTrainedModel:
    """The model in evaluation mode. Raises ModelError where it can't be had."""
    how: dict[str, Any] = {}
    if quantize != "none":
        how = {"quantization_config": in_four_bits(dtype), "device_map": {"": device}}
    with _translated(location):
        # Weights come from safetensors only: a pickle can run code when it is read.
        there = dtype == torch.bfloat16 and _in_bfloat16(location).exists()
        model = AutoModelForCausalLM.from_pretrained(
            location, dtype=dtype, use_safetensors=True, variant=BFLOAT16 if there else None, **how
        )
    # A model's own sampling settings (penalties, top-k) would colour what every query asks for itself.
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
    # Only for a loss of the router, which is frozen; some models can't compute it with our masks.
    text = model.config.get_text_config()
    if getattr(text, "output_router_logits", False):
        text.output_router_logits = False
    if quantize != "none":
        for module in model.modules():
            # On some CPUs bitsandbytes packs weights anew in the first pass that evaluates, which rounds
            # their scales, and lets no gradient through any more.
            if "support_avx512bf16_for_cpu" in vars(module):
                vars(module)["support_avx512bf16_for_cpu"] = False
        return model.eval()
    # transformers wraps `to` in a decorator that hides its type.
    return cast("PreTrainedModel", cast("torch.nn.Module", model).to(device)).eval()


def in_four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How QLoRA keeps weights (https://arxiv.org/abs/2305.14314), computing in this dtype.

    The embeddings and the projection to the vocabulary stay as they are.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _in_bfloat16(location: str) -> Path:
    """The rounded weights of a converted model, which are no others."""
    return Path(location, f"model.{BFLOAT16}.safetensors")


class _translated:  # noqa: N801 - reads as a phrase: `with _translated(location)`
    """Turns transformers' errors about a model that can't be had into ModelError."""

    def __init__(self, location: str) -> None:
        self._location = location

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError | ValueError | KeyError | SafetensorError):
            return
        if Path(self._location).is_dir():
            problem = "can't be loaded as a model"
        else:
            problem = "not a directory here, and not to be had from the hub"
        raise ModelError(f"{self._location}: {problem} ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What an error says, without the advice that follows."""
    return str(error).strip().split("\n", 1)[0]
