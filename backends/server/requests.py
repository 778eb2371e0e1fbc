"""The bodies of requests, with the service's ranges.

Unknown arguments are refused, as the service does, so that none is silently without effect. Those that
change nothing about the answer are taken and ignored.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backends.data import Message, Messages

Absent = Annotated[list[Any], Field(max_length=0)] | None
"""Part of an answer that is sent back in a conversation, and that no answer from here has."""


class Request(BaseModel):
    """A body of JSON, of which nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StreamOptions(Request):
    """How a stream is sent."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class GenerationRequest(Request):
    """What chats and completions have in common."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    user: str | None = None

    @model_validator(mode="after")
    def _options_of_streams_alone(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed when 'stream' is true")
        return self

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The texts that end an answer; an empty one ends nothing."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a chunk about usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(Request):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Request):
    """A turn of a chat, as a client sends it."""

    role: Literal["developer", "system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Absent = None
    tool_calls: Absent = None

    def message(self) -> Message:
        """The turn as the backend has it; a developer's is the system's."""
        text = self.content
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=text if isinstance(text, str) else "".join(part.text for part in text),
        )


ChatMessages = Annotated[list[ChatMessage], Field(min_length=1)]


def as_messages(messages: Sequence[ChatMessage]) -> Messages:
    """A conversation as the backend has it."""
    return tuple(message.message() for message in messages)


class TextFormat(Request):
    """Plain text is the only format here."""

    type: Literal["text"]


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions"""

    messages: ChatMessages
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | None = None

    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' is only allowed when 'logprobs' is true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give either 'max_completion_tokens' or 'max_tokens'")
        return self


_MOST_ANSWERS = 2048
"""Of one request: no more than one each for as many prompts as it may have."""

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1, max_length=2048)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=2048)]


class CompletionRequest(GenerationRequest):
    """POST /v1/completions"""

    prompt: str | Texts | Tokens | TokenLists
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("'max_tokens' must be at least 1, unless 'echo' is true")
        if self.best_of not in (None, self.n or 1):
            raise ValueError("'best_of' other than 'n' is not offered here")
        if len(self.prompts) * (self.n or 1) > _MOST_ANSWERS:
            raise ValueError(f"prompts times 'n' are more than {_MOST_ANSWERS} answers")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType] - one list of tokens
        return list(self.prompt)  # pyright: ignore[reportReturnType] - texts or lists of tokens


class TokenizeRequest(Request):
    """POST /tokenize, in vLLM's form: a text, or a chat; and several texts, which vLLM does not take."""

    model: str | None = None
    prompt: str | Texts | None = None
    add_special_tokens: bool | None = None
    messages: ChatMessages | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either 'prompt' or 'messages'")
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise ValueError(
                    "'continue_final_message' takes 'add_generation_prompt' to be false"
                )
            if not self.messages or len(self.messages) < 2 or self.messages[-1].role != "assistant":
                raise ValueError(
                    "'continue_final_message' takes a last message of the assistant after others"
                )
        return self


class DetokenizeRequest(Request):
    """POST /detokenize, in vLLM's form."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]
