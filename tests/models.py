"""Models for the tests: tiny random ones of several architectures, and the embedded one.

The tiny ones share the embedded model's tokenizer and chat template, so that everything but the weights
is what users have.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from backends.local.models import locate

EMBEDDED = "embedded:smollm2-135m-instruct"
ARCHITECTURES = ("llama", "gpt2", "gemma2")
END = "<end>"
LETTERS = "abcd"

# In Hermes' way, as Qwen's has it, on the tests' own template.
WITH_TOOLS = """\
{%- if tools %}<|im_start|>system
You may call functions:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Write a call as <tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def _tiny(architecture: str, vocabulary: int) -> PreTrainedModel:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "head_dim": 8,
    }
    heads: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    if architecture == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_positions=512, n_embd=32, n_layer=2, n_head=4)
        )
    if architecture == "gemma2":
        # Scaled embeddings, soft-capped logits, and a window far shorter than the tests' contexts.
        return Gemma2ForCausalLM(
            Gemma2Config(
                vocab_size=vocabulary, sliding_window=8, query_pre_attn_scalar=8, **shape, **heads
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, initializer_range=0.2, **shape, **heads)
    )


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> model directory."""
    tokenizer = AutoTokenizer.from_pretrained(locate(EMBEDDED))
    directories = {}
    for architecture in ARCHITECTURES:
        directory = tmp_path_factory.mktemp("models") / architecture
        _tiny(architecture, len(tokenizer)).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        directories[architecture] = directory
    return directories


@pytest.fixture(scope="session")
def tiny_model_with_beginning(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer puts the beginning-of-text token before every text, as Llama's does."""
    directory = tmp_path_factory.mktemp("models") / "llama-with-beginning"
    shutil.copytree(tiny_model, directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    beginning = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{beginning} $A", special_tokens=[(beginning, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_model(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def model_with_tools(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its chat template has a place for functions."""
    directory = tmp_path_factory.mktemp("models") / "caller"
    shutil.copytree(tiny_model, directory)
    (directory / "chat_template.jinja").write_text(WITH_TOOLS, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def letter_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Architecture -> model directory, over an end token and four letters: few enough for every text."""
    vocabulary = {token: number for number, token in enumerate((END, *LETTERS))}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)
    directories = {}
    for architecture in ARCHITECTURES:
        directory = tmp_path_factory.mktemp("letters") / architecture
        model = _tiny(architecture, len(vocabulary))
        for config in (model.config, model.generation_config):
            assert config is not None
            config.eos_token_id, config.bos_token_id, config.pad_token_id = 0, None, None
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        directories[architecture] = directory
    return directories
