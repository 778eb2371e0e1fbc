"""The bodies of requests, with the service's ranges.

Unknown arguments are refused, as the service does, and so are values that ask for what is not offered
here, so that none is silently without effect. What changes nothing about the answer is taken and ignored.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from backends.server.bodies import NotOffered, Refused, Request
from backends.server.chat_messages import ChatMessages
from backends.server.chat_options import Offer, ResponseFormat


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
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Of no effect on an answer.
    user: str | None = None

    @model_validator(mode="after")
    def _options_of_streams_alone(self) -> Self:
        if self.stream_options is not None and not self.stream:
            why = "'stream_options' is only allowed when 'stream' is true"
            raise Refused("stream_options", why)
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


class ChatRequest(GenerationRequest, Offer):
    """POST /v1/chat/completions"""

    messages: ChatMessages
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    audio: NotOffered = None
    function_call: Literal["none", "auto"] | None = None
    functions: NotOffered = None
    modalities: list[Literal["text"]] | None = None
    moderation: NotOffered = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    # Of no effect on an answer: what is kept, billed or computed in advance.
    metadata: dict[str, str] | None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            why = "'top_logprobs' is only allowed when 'logprobs' is true"
            raise Refused("top_logprobs", why)
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise Refused("max_tokens", "give either 'max_completion_tokens' or 'max_tokens'")
        plain = self.response_format is None or self.response_format.type == "text"
        if self.offered and not plain:
            why = "functions together with a format other than text are not offered here"
            raise Refused("response_format", why)
        return self


_MOST_ANSWERS = 2048
"""Of one request: no more than one each for as many prompts as it may have."""

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1, max_length=2048)]
TokenLists = Annotated[list[Tokens], Field(min_length=1, max_length=2048)]


class CompletionRequest(GenerationRequest):
    """POST /v1/completions"""

    prompt: str | Texts | Tokens | TokenLists | None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: NotOffered = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            why = "'max_tokens' must be at least 1, unless 'echo' is true"
            raise Refused("max_tokens", why)
        if self.best_of not in (None, self.n or 1):
            raise Refused("best_of", "'best_of' other than 'n' is not offered here")
        if len(self.prompts) * (self.n or 1) > _MOST_ANSWERS:
            raise Refused("n", f"prompts times 'n' are more than {_MOST_ANSWERS} answers")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or tokens; none is an empty text."""
        if self.prompt is None or isinstance(self.prompt, str):
            return [self.prompt or ""]
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
    chat_template: NotOffered = None
    chat_template_kwargs: NotOffered = None
    return_token_strs: NotOffered = None
    tools: NotOffered = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise Refused("prompt", "give either 'prompt' or 'messages'")
        if any(message.is_of_tools for message in self.messages or ()):
            raise Refused("messages", "calls of functions are not offered here")
        if self.continue_final_message:
            if self.add_generation_prompt:
                why = "'continue_final_message' takes 'add_generation_prompt' to be false"
                raise Refused("continue_final_message", why)
            if not self.messages or len(self.messages) < 2 or self.messages[-1].role != "assistant":
                why = "'continue_final_message' takes a last message of the assistant after others"
                raise Refused("continue_final_message", why)
        return self


class DetokenizeRequest(Request):
    """POST /detokenize, in vLLM's form."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]
