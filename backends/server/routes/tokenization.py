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
    """The tokens of a text, of each of several, or of a chat as the model sees it."""
    if asked.model is not None:
        parts.models.canonical(asked.model)
    length = parts.inference.encoder.context_length
    if isinstance(asked.prompt, list):
        lists = [_of_text(text, asked, parts) for text in asked.prompt]
        return {"count": sum(map(len, lists)), "max_model_len": length, "tokens": lists}
    tokens = _tokens(asked, parts)
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


def _of_text(text: str, asked: TokenizeRequest, parts: Parts) -> list[int]:
    special = asked.add_special_tokens is not False
    return parts.inference.encoder.text(text, special_tokens=special)


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
    if isinstance(asked.prompt, str):
        return _of_text(asked.prompt, asked, parts)
    assert asked.messages is not None
    if asked.continue_final_message:
        *context, answer = asked.messages
        return encoder.chat(as_messages(context), continuation=answer.message().content)
    return encoder.chat(as_messages(asked.messages), for_answer=asked.add_generation_prompt)
