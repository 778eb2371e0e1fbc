"""The request for a response: what `client.responses.create` sends."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from backends.data import Message
from backends.local.tools import Call, turn
from backends.server.bodies import NotOffered, Refused, Request
from backends.server.chat_options import Function, NamedFunction, NamedTool, Offer, Tool
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

    def turn(self) -> dict[str, Any]:
        """The turn in the form of chat templates; a developer's is the system's."""
        role = "system" if self.role == "developer" else self.role
        return turn(role, _text_of(self.content))


class CalledFunction(Request):
    """A call of a function, as an answer has it."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    caller: NotOffered = None
    namespace: NotOffered = None

    def turn(self) -> dict[str, Any]:
        """The turn in the form of chat templates."""
        return turn("assistant", "", [Call(self.name, self.arguments)])


class FunctionOutput(Request):
    """What a called function answers."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | Annotated[list[Part], Field(min_length=1)]
    id: str | None = None
    name: str | None = None
    status: str | None = None
    caller: NotOffered = None
    namespace: NotOffered = None

    def turn(self) -> dict[str, Any]:
        """The turn in the form of chat templates."""
        return turn("tool", _text_of(self.output), answers=self.call_id)


def _text_of(content: str | Sequence[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _kind(item: Any) -> str:  # noqa: ANN401 - whatever was sent
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None else str(kind)


Item = Annotated[
    Annotated[Turn, Tag("message")]
    | Annotated[CalledFunction, Tag("function_call")]
    | Annotated[FunctionOutput, Tag("function_call_output")],
    Discriminator(_kind),
]


class FunctionTool(Function):
    """A function that the model may call; no other tools are offered."""

    type: Literal["function"]

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, given: Any) -> Any:  # noqa: ANN401 - whatever stands there
        if isinstance(given, dict) and given.get("type", "function") != "function":
            raise Refused("type", f"'{given['type']}' is not offered; functions are")
        return given


class ChosenFunction(NamedFunction):
    """The function that is to be called."""

    type: Literal["function"]


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
    input: str | Annotated[list[Item], Field(min_length=1)]
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

    parallel_tool_calls: bool | None = None

    background: NotOffered = None
    context_management: NotOffered = None
    conversation: NotOffered = None
    moderation: NotOffered = None
    prompt: NotOffered = None
    reasoning: Reasoning | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    tools: list[FunctionTool] | None = None
    truncation: Literal["disabled"] | None = None

    # Of no effect on an answer.
    max_tool_calls: int | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        self.offer.check_choice()
        if self.offer.offered and self.schema_of_answers is not None:
            raise Refused("text.format", "answers are calls of functions, or are held to a format")
        return self

    @cached_property
    def offer(self) -> Offer:
        """The functions, as chats have them."""
        chosen = self.tool_choice
        if isinstance(chosen, ChosenFunction):
            named = NamedFunction(name=chosen.name)
            chosen = NamedTool(type="function", function=named)
        tools = [
            Tool(type="function", function=Function(**tool.model_dump(exclude={"type"})))
            for tool in self.tools or ()
        ]
        return Offer.model_construct(
            tools=tools, tool_choice=chosen, parallel_tool_calls=self.parallel_tool_calls
        )

    @property
    def turns(self) -> list[dict[str, Any]]:
        """What it adds to the conversation, in the form of chat templates; calls belong to one turn."""
        if isinstance(self.input, str):
            return [turn("user", self.input)]
        return merged([item.turn() for item in self.input])

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


def merged(turns: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns, with calls that follow the assistant's text or other calls in one turn."""
    made: list[dict[str, Any]] = []
    for one in turns:
        calls = one.get("tool_calls")
        if calls and made and made[-1]["role"] == "assistant":
            made[-1] = made[-1] | {"tool_calls": [*made[-1].get("tool_calls", []), *calls]}
        else:
            made.append(one)
    return made


def as_messages(turns: Sequence[dict[str, Any]]) -> tuple[Message, ...] | None:
    """The turns as the backend has them; None where functions are among them."""
    if any(one["role"] == "tool" or one.get("tool_calls") for one in turns):
        return None
    return tuple(Message(role=one["role"], content=one["content"]) for one in turns)
