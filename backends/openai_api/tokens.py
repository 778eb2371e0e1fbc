"""How texts fall into tokens: by tiktoken's tables, by the server itself, or by a tokenizer on the hub."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tiktoken

from backends.data import AnyExample, Message, PreferenceExample
from backends.errors import ModelError, SettingsError
from backends.openai_api.asking import on_the_wire
from backends.openai_api.availability import check_model, is_openais_own
from backends.openai_api.connection import Connection, RequestFailed
from backends.openai_api.failures import Kind
from backends.openai_api.models import base_name
from backends.openai_api.server_tokenizer import ServerTokenizer, post_tokenize

Encode = Callable[[str], tuple[int, ...]]
"""A text's token ids."""

_TOKENS_A_MESSAGE = 3
"""What the chat format adds to a message's content and role (the facts of the wire format: 3 specials)."""


async def tokenize_at(connection: Connection, body: dict[str, Any]) -> list[int]:
    """The server's own `/tokenize`, in vLLM's form.

    https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#tokenizer-api: a `prompt`, or
    `messages` with `add_generation_prompt` and `continue_final_message`.

    Raises:
        ModelError: the server does not have the model.
        ServiceError: the server refuses, or has no such endpoint.
    """
    answer = await connection.call(
        "tokenize", lambda: post_tokenize(connection, body), model=body.get("model")
    )
    return answer.tokens


async def chat_tokens(
    connection: Connection, model: str, messages: Sequence[Message], answer: str | None = None
) -> list[int]:
    """A chat's tokens by the server, open for the assistant's answer or for what follows its beginning."""
    turns = on_the_wire(messages)
    body: dict[str, Any] = {"model": model, "messages": turns, "add_generation_prompt": True}
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return await tokenize_at(connection, body)


async def can_tokenize(connection: Connection, model: str) -> bool:
    """Whether the server has `/tokenize`. Raises ModelError where it does not have the model."""
    body = {"model": model, "prompt": "a", "add_special_tokens": False}
    try:
        answer = await connection.tried("try /tokenize", lambda: post_tokenize(connection, body))
    except RequestFailed as error:
        missing = error.failure.is_about(model)
        if error.failure.kind in (Kind.NOT_FOUND, Kind.REFUSED) and not missing:
            return False
        raise error.failure.as_error("try /tokenize", model) from error
    return bool(getattr(answer, "tokens", None))  # some servers answer whatever they are asked


def choose_tokenizer(connection: Connection, name: str, model: str) -> Encode:
    """The tokenizer that the settings name, "auto" finding the model's own.

    Raises:
        ModelError: the service does not know the model.
        SettingsError: it can't be told how the model cuts texts into tokens.
    """
    if name in tiktoken.list_encoding_names():
        return _by_table(name)
    if name != "auto":
        return _by_hub(name)
    elsewhere = not is_openais_own(connection.address)
    if elsewhere:  # where OpenAI's names may well be other names of other models
        connection.run(check_model(connection, model))
        if connection.run(can_tokenize(connection, model)):
            return ServerTokenizer(connection, model)
    try:
        return _by_table(tiktoken.encoding_name_for_model(base_name(model)))
    except KeyError:
        if not elsewhere:
            connection.run(check_model(connection, model))  # a mistaken name is the likelier reason
    raise SettingsError(
        f"openai.tokenizer: how {model} cuts texts into tokens is not known here, and the server has no "
        "/tokenize; name a tiktoken encoding (o200k_base, say), or a tokenizer's directory or hub id"
    )


def _by_table(encoding_name: str) -> Encode:
    @functools.cache
    def table() -> tiktoken.Encoding:
        try:
            return tiktoken.get_encoding(encoding_name)
        except Exception as error:  # of several HTTP libraries
            raise ModelError(
                f"the tokenizer table {encoding_name} can't be downloaded ({type(error).__name__}); "
                "TIKTOKEN_CACHE_DIR may name a directory that has it"
            ) from error

    return functools.lru_cache(maxsize=100_000)(
        lambda text: tuple(table().encode(text, disallowed_special=()))
    )


def _by_hub(name: str) -> Encode:
    from backends.local.models import load_tokenizer, locate  # heavy, and seldom needed here

    tokenizer = load_tokenizer(locate(name))
    return functools.lru_cache(maxsize=100_000)(
        lambda text: tuple(tokenizer.encode(text, add_special_tokens=False))
    )


def ask_together(encode: Encode, texts: Iterable[str]) -> None:
    """Says which texts come next, so that a server is asked for them at once."""
    if isinstance(encode, ServerTokenizer):
        encode.learn(texts)


def message_texts(messages: Sequence[Message]) -> Iterator[str]:
    """What `message_tokens` counts."""
    for message in messages:
        yield from (message.content, message.role)


def message_tokens(encode: Encode, messages: Sequence[Message]) -> int:
    """What a chat is billed as: each message's content and role, and three tokens of format."""
    in_texts = sum(len(encode(text)) for text in message_texts(messages))
    return in_texts + _TOKENS_A_MESSAGE * len(messages)


def example_texts(example: AnyExample) -> Iterator[str]:
    """What `example_tokens` counts."""
    if isinstance(example, PreferenceExample):
        for one in example.each_learned:
            yield from example_texts(one)
        return
    if example.messages is not None:
        yield from message_texts(example.messages)
    else:
        yield from (example.prompt or "", example.completion or "")


def example_tokens(encode: Encode, example: AnyExample) -> int:
    """What one epoch of an example is billed as; of a preference, the prompt with each of its answers."""
    if isinstance(example, PreferenceExample):
        return sum(example_tokens(encode, one) for one in example.each_learned)
    if example.messages is not None:
        return message_tokens(encode, example.messages)
    return sum(len(encode(text)) for text in example_texts(example))
