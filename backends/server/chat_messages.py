"""The turns of a chat as a client sends them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from backends.data import Message, Messages
from backends.local.tools import Call, turn
from backends.server.bodies import NotOffered, Refused, Request


class TextPart(Request):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class CalledFunction(Request):
    """What is called; the arguments are JSON."""

    name: str
    arguments: str


class ToolCall(Request):
    """A call of a function, as an answer has it."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatMessage(Request):
    """A turn of a chat."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1)] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    # Chat templates have no place for it.
    name: str | None = None
    # Parts of an answer that is sent back, and that no answer from here has.
    refusal: NotOffered = None
    audio: NotOffered = None
    function_call: NotOffered = None
    annotations: NotOffered = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise Refused("tool_calls", "only a turn of the assistant has calls")
        if self.content is None and not self.tool_calls:
            raise Refused("content", "give a text, or its parts")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise Refused("tool_call_id", "goes with the role 'tool', which answers a call")
        return self

    @property
    def text(self) -> str:
        """All of its text."""
        given = self.content or ""
        return given if isinstance(given, str) else "".join(part.text for part in given)

    @property
    def is_of_tools(self) -> bool:
        """Whether it calls a function, or is what a function answers."""
        return self.role == "tool" or bool(self.tool_calls)

    def message(self) -> Message:
        """The turn as the backend has it; a developer's is the system's."""
        if self.role == "tool":
            raise ValueError("a function's turn is no message")
        return Message(role="system" if self.role == "developer" else self.role, content=self.text)

    def turn(self) -> dict[str, Any]:
        """The turn in the form of chat templates."""
        calls = [Call(c.function.name, c.function.arguments) for c in self.tool_calls or ()]
        role = "system" if self.role == "developer" else self.role
        return turn(role, self.text, calls, self.tool_call_id)


ChatMessages = Annotated[list[ChatMessage], Field(min_length=1)]


def as_messages(messages: Sequence[ChatMessage]) -> Messages:
    """A conversation without functions as the backend has it."""
    return tuple(message.message() for message in messages)
