"""What is read of a service's answers; whatever else stands in them is passed over.

The SDK hands on what it gets unchecked, and its types refuse what servers send with `echo` (a null for the
first token's log-probability).
"""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from backends.errors import ServiceError
from backends.openai_api.failures import check_cut_off
from backends.schema import explain


class Usage(BaseModel):
    """What the request was counted as."""

    total_tokens: int


class ListedToken(BaseModel):
    """A token and its log-probability (nats)."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class PathToken(ListedToken):
    """A generated token, with the likeliest ones at its position."""

    top_logprobs: list[ListedToken] = []


class ChatLogprobs(BaseModel):
    """The generated tokens; None where there are none."""

    content: list[PathToken] | None


class ChatMessage(BaseModel):
    """What the assistant said."""

    content: str | None = None


class ChatChoice(BaseModel):
    """One generated answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatAnswer(BaseModel):
    """https://platform.openai.com/docs/api-reference/chat/object."""

    choices: list[ChatChoice]
    usage: Usage | None = None


class TextLogprobs(BaseModel):
    """One entry a token; a first token of a prompt has None."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class TextChoice(BaseModel):
    """One continued text."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None


class TextAnswer(BaseModel):
    """https://platform.openai.com/docs/api-reference/completions/object."""

    choices: list[TextChoice]
    usage: Usage | None = None


Answer = ChatAnswer | TextAnswer
AnswerKind = TypeVar("AnswerKind", ChatAnswer, TextAnswer)


def read(kind: type[AnswerKind], content: bytes | str) -> AnswerKind:
    """An answer's body.

    Raises:
        CutOffError: it broke off on its way.
        ServiceError: it is whole, and not in the wire format.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        check_cut_off(content)
        raise ServiceError(
            f"the answer is not in the wire format ({explain(error)}); is openai.base_url right?"
        ) from error
