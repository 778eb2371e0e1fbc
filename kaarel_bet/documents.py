"""Settings as plain data that knows where each of its keys stands, to point at mistakes.

Every error is one line: `my.yaml, line 12, column 5: arms.conditional.train: ...`.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from backends.errors import SettingsError
from backends.schema import did_you_mean
from kaarel_bet.problems import Keys, most_helpful, unknown_keys

Model = TypeVar("Model")


@dataclass(frozen=True)
class Place:
    """Where a key stands, and where its value begins if that is text of one line (from 1)."""

    name: str
    line: int = 0
    column: int = 0
    text: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.name}, line {self.line}, column {self.column}" if self.line else self.name

    def inside(self, offset: int) -> "Place":
        """The place of a character of the value."""
        return Place(self.name, self.text[0], self.text[1] + offset) if self.text else self


class Document:
    """A mapping of keys to values; what is laid over it keeps its own place."""

    def __init__(
        self, name: str, data: Mapping[str, Any], places: Mapping[Keys, Place] | None = None
    ) -> None:
        self.name = name
        self.data: dict[str, Any] = deepcopy(dict(data))
        self.places: dict[Keys, Place] = dict(places or {})

    def copy(self) -> "Document":
        """One that can be changed by itself."""
        return Document(self.name, self.data, self.places)

    def place(self, keys: Keys) -> Place:
        """Where a key stands, or the nearest one around it."""
        for n in range(len(keys), 0, -1):
            if keys[:n] in self.places:
                return self.places[keys[:n]]
        return Place(self.name)

    def error(self, keys: Keys, what: str, offset: int | None = None) -> SettingsError:
        """A mistake at a key, or at a character of its value."""
        place = self.place(keys)
        place = place if offset is None else place.inside(offset)
        return SettingsError(f"{place}: {dotted(keys)}: {what}" if keys else f"{place}: {what}")

    def put(self, keys: Keys, value: object, place: Place) -> None:
        """Sets a value, making the mappings on the way to it; a number is a place in a list.

        Raises:
            SettingsError: the way leads through a value.
        """
        at: Any = self.data
        for n, key in enumerate(keys, 1):
            if isinstance(at, list):
                key: Any = _index(at, key, dotted(keys), place)
            elif not isinstance(at, dict):
                raise SettingsError(
                    f"{place}: {dotted(keys)}: '{keys[n - 2]}' is a value, not a section"
                )
            if n == len(keys):
                at[key] = deepcopy(value)
            else:
                if isinstance(at, dict) and at.get(key) is None:  # a section that is left empty
                    at[key] = {}
                    self.places.setdefault(keys[:n], place)
                at = at[key]
        self._forget(keys)
        self.places[keys] = place

    def merge(
        self, keys: Keys, value: object, other: "Document", at: Keys, *, null_removes: bool
    ) -> None:
        """Lays what stands in another document over this, mappings key by key."""
        if isinstance(value, Mapping):
            if not isinstance(self.get(keys), dict):
                self.put(keys, {}, other.place(at))
            for key, inner in value.items():
                self.merge((*keys, key), inner, other, (*at, key), null_removes=null_removes)
        elif value is None and null_removes:
            self.remove(keys)
        else:
            self.put(keys, value, other.place(at))

    def get(self, keys: Keys) -> Any:  # noqa: ANN401
        """The value there, None if there is none."""
        at: Any = self.data
        for key in keys:
            at = at.get(key) if isinstance(at, dict) else None
        return at

    def remove(self, keys: Keys) -> None:
        """Takes a key away, if it is there."""
        if isinstance(around := self.get(keys[:-1]), dict):
            around.pop(keys[-1], None)
            self._forget(keys)

    def _forget(self, keys: Keys) -> None:
        self.places = {k: p for k, p in self.places.items() if k[: len(keys)] != keys}

    def validated(self, kind: type[Model], keys: Keys = ()) -> Model:
        """The data (or what stands at `keys`) as the type has it.

        Raises:
            SettingsError: an unknown key, or a value that does not fit.
        """
        data = self.get(keys)
        data = {} if data is None else data
        for wrong, known in unknown_keys(data, kind):
            hint = did_you_mean(str(wrong[-1]), known)
            prefix = "".join(f"{key}." for key in (*keys, *wrong[:-1]))
            hint = hint.replace("did you mean '", f"did you mean '{prefix}")
            place = self.place((*keys, *wrong))
            raise SettingsError(f"{place}: unknown key '{prefix}{wrong[-1]}'; {hint}")
        try:
            # By way of JSON, strictness knows that a list may stand for a tuple but "3" not for 3.
            return TypeAdapter(kind).validate_json(json.dumps(data))
        except ValidationError as error:
            inner, what = most_helpful(error, data)
            raise self.error((*keys, *inner), what) from error
        except (TypeError, ValueError, RecursionError) as error:  # plain data, but not from a file
            raise self.error(keys, f"{error}") from error


def dotted(keys: Keys) -> str:
    """A key as --set has it."""
    return ".".join(map(str, keys))


def _index(items: Sequence[Any], key: str | int, path: str, place: Place) -> int:
    if not str(key).isdecimal() or int(key) >= len(items):
        raise SettingsError(
            f"{place}: {path}: '{key}' is no place in a list of {len(items)}, counted from 0"
        )
    return int(key)
