"""/tokenize, /detokenize and /tokenizer_info, as vLLM has them.

Source: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (tokenizer API).
"""

from typing import Any

from fastapi import APIRouter

from backends.server.chat_messages import as_messages
from backends.server.errors import invalid
from backends.server.requests import DetokenizeRequest, TokenizeRequest
from backends.server.service import Parts

router = APIRouter()


@router.post("/tokenize")
def tokenize(asked: TokenizeRequest, parts: Parts) -> dict[str, Any]:
    """The tokens of a text, or of a chat as the model sees it."""
    if asked.model is not None:
        parts.models.canonical(asked.model)
    tokens = _tokens(asked, parts)
    length = parts.inference.encoder.context_length
    return {"count": len(tokens), "max_model_len": length, "tokens": tokens}


@router.post("/detokenize")
def detokenize(asked: DetokenizeRequest, parts: Parts) -> dict[str, str]:
    """The text of tokens."""
    if asked.model is not None:
        parts.models.canonical(asked.model)
    tokenizer = parts.inference.tokenizer
    if any(token >= len(tokenizer) for token in asked.tokens):
        raise invalid(f"Token ids must be below {len(tokenizer)}.", "tokens")
    return {"prompt": str(tokenizer.decode(asked.tokens))}


@router.get("/tokenizer_info")
def tokenizer_info(parts: Parts) -> dict[str, Any]:
    """What a client needs to encode as the model does, such as lm-evaluation-harness's remote tokenizer."""
    tokenizer = parts.inference.tokenizer
    template = tokenizer.chat_template
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "unk_token": tokenizer.unk_token,
        "chat_template": None if template is None else tokenizer.get_chat_template(),
        "model_max_length": parts.inference.encoder.context_length,
    }


def _tokens(asked: TokenizeRequest, parts: Parts) -> list[int]:
    encoder = parts.inference.encoder
    if asked.messages is None:
        special = asked.add_special_tokens is not False
        return encoder.text(asked.prompt or "", special_tokens=special)
    if asked.continue_final_message:
        *context, answer = asked.messages
        return encoder.chat(as_messages(context), continuation=answer.message().content)
    return encoder.chat(as_messages(asked.messages), for_answer=asked.add_generation_prompt)
