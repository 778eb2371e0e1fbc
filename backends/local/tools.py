"""Functions that a model may call: shown to it by its own chat template, and read from its answers.

How a model writes calls is what its tokenizer says (`response_template`), or Hermes' way, which Qwen and
many others share (https://github.com/NousResearch/Hermes-Function-Calling) and chat templates show.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from backends.errors import DataError, UnsupportedError
from backends.local.constraints import LAYOUT, Constraint, Grammars
from backends.local.encoding import Encoder

Function = Mapping[str, Any]
"""`name`, and perhaps `description` and `parameters` (a JSON Schema)."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_HERMES: dict[str, Any] = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "content": {"content": "text", "repeats": True, "join": ""},
        "tool_calls": {"open": _OPEN, "close": _CLOSE, "content": "json", "repeats": True},
    },
}
_PROBE = ({"role": "user", "content": "?"},)


@dataclass(frozen=True)
class Call:
    """A function's name and its arguments as JSON."""

    name: str
    arguments: str


class Tools:
    """What one model's tokenizer can say of functions and calls."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: Encoder) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder

    def prompt(
        self, turns: Sequence[Mapping[str, Any]], functions: Sequence[Function]
    ) -> list[int]:
        """A chat's tokens, open for an answer; turns may have `tool_calls`, or be a function's (role tool).

        Raises:
            UnsupportedError: the chat template has no place for functions, or there is no template.
            DataError: the template refuses the turns.
        """
        shown = [{"type": "function", "function": function} for function in functions]
        probed = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        if self._encoder.turns(_PROBE, probed) == self._encoder.turns(_PROBE, []):
            raise UnsupportedError("the model's chat template has no place for functions to call")
        if functions and not self._format:
            raise UnsupportedError("how the model writes calls of functions is not known here")
        return self._encoder.turns(turns, shown)

    def forced(
        self, grammars: Grammars, functions: Sequence[Function], *, several: bool
    ) -> Constraint:
        """Answers that are a call of one of the functions, or several calls.

        Raises:
            UnsupportedError: the model has a way of its own to write calls, or the parameters' schema
                is not supported.
        """
        if self._format is not _HERMES:
            raise UnsupportedError(
                "calls can't be required of a model that writes them its own way"
            )
        return _calls(grammars, functions, several=several, in_text=False)

    def held(
        self, grammars: Grammars, functions: Sequence[Function], *, several: bool
    ) -> Constraint | None:
        """Answers as the model likes, in which a call that it begins is one of a function there is.

        None where the model has a way of its own to write calls, or a schema is not supported that need not
        be followed strictly. Raises UnsupportedError for one that must be.
        """
        if self._format is not _HERMES:
            return None
        try:
            return _calls(grammars, functions, several=several, in_text=True)
        except UnsupportedError:
            if any(function.get("strict") for function in functions):
                raise
            return None

    def read(self, tokens: Sequence[int], functions: Sequence[Function]) -> tuple[str, list[Call]]:
        """An answer's text and the calls in it; what is no call of a function there is, stays text."""
        text = str(self._tokenizer.decode(list(tokens)))
        try:
            parsed: Any = self._tokenizer.parse_response(text, self._format, prefix="")
            made = [call.get("function", call) for call in parsed.get("tool_calls") or []]
            names = {function["name"] for function in functions}
            calls = [
                Call(call["name"], json.dumps(call.get("arguments") or {}, ensure_ascii=False))
                for call in made
                if call["name"] in names
            ]
        except (ValueError, TypeError, KeyError, AttributeError):  # half a call, or no JSON
            return text, []
        if len(calls) < len(made):
            return text, []
        return str(parsed.get("content") or "").strip(), calls

    @property
    def _format(self) -> dict[str, Any] | None:
        if own := getattr(self._tokenizer, "response_template", None):
            return own
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("tool_use") or template.get("default")
        shown = (template or "").replace("\\", "")
        is_hermes = _OPEN in shown and '"arguments"' in shown and "<function=" not in shown
        return _HERMES if is_hermes else None


def _calls(
    grammars: Grammars, functions: Sequence[Function], *, several: bool, in_text: bool
) -> Constraint:
    written = (
        (f'{{"name": {json.dumps(f["name"])}, "arguments": ', _object(f), "}") for f in functions
    )
    return grammars.calls(written, around=(_OPEN, _CLOSE), several=several, in_text=in_text)


def _object(function: Function) -> dict[str, Any]:
    """The schema of a function's arguments."""
    return {"type": "object", "x-guidance": LAYOUT} | (function.get("parameters") or {})


def turn(
    role: str, content: str | None, calls: Sequence[Call] = (), answers: str | None = None
) -> dict[str, Any]:
    """A turn in the form of chat templates; `answers` is the id of the call that a function answers."""
    made: dict[str, Any] = {"role": role, "content": content or ""}
    if calls:
        made["tool_calls"] = [
            {"type": "function", "function": {"name": c.name, "arguments": _arguments(c)}}
            for c in calls
        ]
    return made if answers is None else made | {"tool_call_id": answers}


def _arguments(call: Call) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(call.arguments)
    except ValueError as error:
        raise DataError(f"the arguments of the call of '{call.name}' are not JSON") from error
