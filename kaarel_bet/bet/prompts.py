"""Prompts and other texts with `{column}`s, filled in row by row."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backends.data import Message, Messages
from backends.errors import SettingsError
from backends.schema import did_you_mean, explain
from kaarel_bet.bet.schema import Bet, Prompt
from kaarel_bet.experiments.interface import Row

Context = tuple[Message, ...] | str
"""What an answer comes after: a chat, or a text."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")
_NAME = re.compile(r"[\w-]+")
_MESSAGES = TypeAdapter(Messages)


def unknown(what: str, name: str, known: Iterable[str], where: str) -> SettingsError:
    """The error for a name at the key `where` that does not exist."""
    known = list(known)
    hint = did_you_mean(name, known) if known else "there is none"
    return SettingsError(f"{where}: no {what} '{name}'; {hint}")


def cell(row: Row, column: str, where: str) -> Any:  # noqa: ANN401
    """A row's value in a column. Raises SettingsError if there is no such column."""
    if column not in row:
        raise unknown("column", column, row, where)
    return row[column]


def options_of(row: Row, column: str, where: str) -> list[str]:
    """A row's list of texts. Raises SettingsError if it is none."""
    found = cell(row, column, where)
    if not isinstance(found, list | tuple) or not found or {type(text) for text in found} != {str}:
        raise SettingsError(f"{where}: column '{column}' is no list of texts in row {row['id']}")
    return list(found)


def messages_of(row: Row, column: str, where: str) -> tuple[Message, ...]:
    """A row's own chat. Raises SettingsError if it is none in OpenAI's format."""
    try:
        return _MESSAGES.validate_python(cell(row, column, where), strict=False)
    except ValidationError as error:
        what = f"column '{column}' is no chat in OpenAI's format in row {row['id']}"
        raise SettingsError(f"{where}: {what}: {explain(error)}") from error


def check_text(text: str, where: str) -> None:
    """Raises SettingsError for a brace that belongs to no column."""
    for found in _PIECE.finditer(text):
        if found[0] in ("{", "}"):
            instead = f"write '{found[0] * 2}' for the brace itself"
            raise SettingsError(f"{where}: a '{found[0]}' that belongs to no {{column}}; {instead}")


def fill(text: str, row: Row, where: str) -> str:
    """Verbatim text, but that `{column}` is the row's value and `{{` and `}}` are braces.

    Raises:
        SettingsError: there is no such column, or it holds what is no text.
    """
    check_text(text, where)
    return _PIECE.sub(
        lambda found: found[0][0] if found[1] is None else _value(row, found[1], where), text
    )


def _value(row: Row, column: str, where: str) -> str:
    value = cell(row, column, where)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    what = "empty" if value is None else f"a {type(value).__name__}"
    raise SettingsError(
        f"{where}: column '{column}' is {what} in row {row['id']}; texts and numbers can stand in a text"
    )


def with_system(turns: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """The chat with this system prompt, in place of its own if it has one."""
    if system is None:
        return turns
    rest = turns[1:] if turns[0].role == "system" else turns
    return (Message(role="system", content=system), *rest)


@dataclass(frozen=True)
class Form:
    """One way of asking: a chat, the row's own chat, or a text that is continued."""

    where: str
    turns: tuple[Message, ...] = ()
    chat: str | None = None
    text: str | None = None
    prefill: str | None = None

    def context(self, row: Row, system: str | None = None) -> Context:
        """What the row's answer comes after; `system` replaces the system prompt of a chat."""
        if self.text is not None:
            return fill(self.text, row, self.where)
        if self.chat is not None:
            turns = messages_of(row, self.chat, self.where)
            answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
            asked = turns[: answers[-1]] if answers else turns
            if not asked or asked[-1].role != "user":
                what = f"no user's turn is before the last answer of the chat in row {row['id']}"
                raise SettingsError(f"{self.where}: {what}")
            return with_system(asked, system)
        filled = ((turn, fill(turn.content, row, self.where)) for turn in self.turns)
        turns = tuple(turn.model_copy(update={"content": text}) for turn, text in filled)
        return with_system(turns, system)

    def prefilled(self, row: Row) -> str | None:
        """How the row's answer is forced to begin."""
        return None if self.prefill is None else fill(self.prefill, row, self.where)

    def answer(self, text: str) -> str:
        """An answer as it follows. White space before a chat's turn is left to the chat's template."""
        return text.lstrip() if self.text is None and self.prefill is None else text


def _form(prompt: str | Prompt, where: str) -> Form:
    if isinstance(prompt, str):
        prompt = Prompt(user=prompt)
    system = () if prompt.system is None else (Message(role="system", content=prompt.system),)
    user = () if prompt.user is None else (Message(role="user", content=prompt.user),)
    turns = (*system, *user, *(prompt.messages or ()))
    if turns and turns[-1].role != "user":
        raise SettingsError(f"{where}.messages: must end with a user's turn, which is answered")
    if prompt.text is not None and prompt.prefill is not None:
        raise SettingsError(f"{where}.prefill: goes with a chat; let the text end with it")
    for text in (prompt.text or "", prompt.prefill or "", *(turn.content for turn in turns)):
        check_text(text, where)
    return Form(where, turns, prompt.chat, prompt.text, prompt.prefill)


class Prompts:
    """The bet's prompts by name; each is one or several phrasings."""

    def __init__(self, bet: Bet) -> None:
        self._found = {
            name: tuple(_form(one, f"prompts.{name}.{place}") for place, one in enumerate(prompt))
            if isinstance(prompt, tuple)
            else (_form(prompt, f"prompts.{name}"),)
            for name, prompt in bet.prompts.items()
        }

    def of(self, name: str, where: str) -> tuple[Form, ...]:
        """By name; what is more than a word is itself the text of a user's turn.

        Raises:
            SettingsError: no prompt has this name.
        """
        if name in self._found:
            return self._found[name]
        if not _NAME.fullmatch(name):
            return (_form(name, where),)
        raise unknown("prompt", name, self._found, where)
