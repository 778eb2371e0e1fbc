"""What a chat's answers are to look like, and which functions they may call."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from backends.server.bodies import Refused, Request

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class JsonSchema(Request):
    """What an answer is to look like. Every schema is followed strictly, as `strict` has it."""

    name: Name
    description: str | None = None
    content: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Request):
    """Plain text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' goes with the type 'json_schema'")
        return self

    @property
    def schema_of_answers(self) -> dict[str, Any] | None:
        """The schema that answers are to be valid by, None for plain text."""
        if self.json_schema is not None and self.json_schema.content is not None:
            return self.json_schema.content
        return None if self.type == "text" else {"type": "object"}


class Function(Request):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Request):
    """Functions are the only tools here."""

    type: Literal["function"]
    function: Function


class NamedFunction(Request):
    """A function's name."""

    name: str


class NamedTool(Request):
    """The function that is to be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class Offer(Request):
    """The functions of a request, and whether one must be called."""

    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    # Whether there may be several calls in an answer.
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _choice_of_a_tool(self) -> Self:
        self.check_choice()
        return self

    def check_choice(self) -> None:
        """Raises Refused where tools and choice do not fit together."""
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise Refused("tools", "two functions have the same name")
        if self.tool_choice == "required" and not names:
            raise Refused("tool_choice", "'required' takes 'tools'")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise Refused("tool_choice", "no function of that name is among the 'tools'")

    @property
    def offered(self) -> list[dict[str, Any]]:
        """Those that the model is shown, as `Tools` takes them; none where none may be called."""
        if self.tool_choice == "none":
            return []
        return [tool.function.model_dump(exclude_none=True) for tool in self.tools or ()]

    @property
    def required(self) -> list[dict[str, Any]]:
        """Those of which one must be called."""
        if isinstance(self.tool_choice, NamedTool):
            name = self.tool_choice.function.name
            return [function for function in self.offered if function["name"] == name]
        return self.offered if self.tool_choice == "required" else []

    @property
    def several_calls(self) -> bool:
        """Whether an answer may call more than once."""
        return self.parallel_tool_calls is not False and not isinstance(self.tool_choice, NamedTool)
