"""The request for a response: what `client.responses.create` sends."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from backends.data import Message
from backends.server.bodies import NotOffered, Refused, Request
from backends.server.metadata import Metadata
from backends.server.requests import GenerationRequest, StreamOptions

LOGPROBS = "message.output_text.logprobs"


class Part(Request):
    """A piece of a turn's text."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: NotOffered = None
    logprobs: list[Any] | None = None


class Turn(Request):
    """A turn of the conversation; an answer's own can be sent back."""

    type: Literal["message"] | None = None
    role: Literal["developer", "system", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def message(self) -> Message:
        """The turn as the backend has it; a developer's is the system's."""
        text = self.content
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=text if isinstance(text, str) else "".join(part.text for part in text),
        )


class Format(Request):
    """Plain text, any JSON object, or JSON by a schema, which is always followed strictly."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    content: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.type == "json_schema") != (self.content is not None):
            raise Refused("schema", "'schema' goes with the type 'json_schema'")
        return self


class Text(Request):
    """What the answer's text is to look like."""

    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Request):
    """No model here reasons before it answers."""

    effort: Literal["none"] | None = None
    summary: NotOffered = None
    generate_summary: NotOffered = None


class ResponseRequest(Request):
    """POST /v1/responses"""

    model: str
    input: str | Annotated[list[Turn], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: Text | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    previous_response_id: str | None = None

    background: NotOffered = None
    context_management: NotOffered = None
    conversation: NotOffered = None
    moderation: NotOffered = None
    prompt: NotOffered = None
    reasoning: Reasoning | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: NotOffered = None
    truncation: Literal["disabled"] | None = None

    # Of no effect on an answer.
    max_tool_calls: int | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None

    @property
    def turns(self) -> Sequence[Message]:
        """What it adds to the conversation."""
        if isinstance(self.input, str):
            return [Message(role="user", content=self.input)]
        return [turn.message() for turn in self.input]

    @property
    def schema_of_answers(self) -> dict[str, Any] | None:
        """The schema that answers are to be valid by, None for plain text."""
        wanted = self.text.format if self.text else None
        if wanted is None or wanted.type == "text":
            return None
        return {"type": "object"} if wanted.content is None else wanted.content

    @property
    def generation(self) -> GenerationRequest:
        """What it has in common with chats."""
        return GenerationRequest(model=self.model, temperature=self.temperature, top_p=self.top_p)
