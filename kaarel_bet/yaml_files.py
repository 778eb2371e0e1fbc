"""YAML (1.2) as documents: plain values, the place of every key, an error of one line for every trap."""

import math
import warnings
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from backends.errors import SettingsError
from kaarel_bet.documents import Document, Keys, Place

_DEEPEST, _LARGEST, _MOST = 50, 10**300, 200_000
"""Levels of nesting, a whole number, and values in a file (aliases multiply); no settings come near."""


_PLAINLY = {
    "mapping values are not allowed": "a ': ' where no key can stand; a text that has one wants quotes, or "
    "the line is indented otherwise than those it belongs to",
    "could not find expected ':'": "a line that is no 'key: value'",
    "expected <block end>": "indented otherwise than what it belongs to, or a quote too many above",
}
"""How what the library says of the commonest slips begins -> what to do."""


def read(path: Path, shown: str | None = None) -> Document:
    """A file, which errors call `shown`.

    Raises:
        SettingsError: it can't be read or is not a YAML mapping.
    """
    name = shown or str(path)
    try:
        return parse(path.read_text(encoding="utf-8-sig"), name)
    except OSError as error:
        raise SettingsError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}: not UTF-8 text (byte {error.start})") from error


def parse(text: str, name: str) -> Document:
    """A file's text. Raises SettingsError."""
    reader = _Reader(name)
    data = reader.whole(text)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SettingsError(f"{name}: must be a mapping of keys to values")
    return Document(name, data, reader.places)


def parse_value(text: str, name: str) -> Any:  # noqa: ANN401
    """A single value. Raises SettingsError."""
    return _Reader(name, is_file=False).whole(text)


class _Reader:
    """YAML's tree of nodes as plain data."""

    def __init__(self, name: str, *, is_file: bool = True) -> None:
        self._name = name
        self._is_file = is_file
        self._left = _MOST
        self.places: dict[Keys, Place] = {}

    def whole(self, text: str) -> Any:  # noqa: ANN401
        try:
            with warnings.catch_warnings(action="ignore"):  # of an anchor that is set anew
                root: Any = YAML(typ="safe", pure=True).compose(text)
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            what = f"the character U+{int(error.character):04X} is not taken"
            raise SettingsError(f"{self._name}, line {line}: {what}") from error
        except YAMLError as error:
            mark: Any = getattr(error, "problem_mark", None)
            what = str(getattr(error, "problem", None) or error)
            if mark and text[mark.index : mark.index + 1] == "\t":
                what = "a tab where YAML wants spaces"
            raise SettingsError(f"{self._at(mark)}: {_plainly(what)}") from error
        except RecursionError as error:
            raise SettingsError(f"{self._name}: nested too deeply") from error
        except Exception as error:  # on texts of chance the library raises many kinds
            raise SettingsError(f"{self._name}: can't be read as YAML ({error})") from error
        return None if root is None else self._value(root, (), ())

    def _value(self, node: Node, keys: Keys, around: tuple[int, ...]) -> Any:  # noqa: ANN401
        self._left -= 1
        if id(node) in around:
            raise self._wrong(node, "a value contains itself")
        if len(around) > _DEEPEST or self._left < 0:
            raise self._wrong(node, "nested too deeply, or too many values")
        inside = (*around, id(node))
        match node:
            case ScalarNode():
                return self._scalar(node)
            case SequenceNode(tag="tag:yaml.org,2002:seq"):
                found: list[Any] = []
                for place, item in enumerate(node.value):
                    self._note(item, item, (*keys, place))
                    found.append(self._value(item, (*keys, place), inside))
                return found
            case MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, keys, inside)
        raise self._wrong(node, f"the tag {node.tag} is not known here")

    def _mapping(self, node: MappingNode, keys: Keys, inside: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in found:
                raise self._wrong(
                    key_node, f'the key "{key}" stands here again, after line {lines[key]}'
                )
            lines[key] = key_node.start_mark.line + 1
            self._note(key_node, value_node, (*keys, key))
            found[key] = self._value(value_node, (*keys, key), inside)
        return found

    def _key(self, node: Node) -> str:
        if node.tag == "tag:yaml.org,2002:merge":
            raise self._wrong(node, "merge keys (<<) are not taken; write the keys out")
        key = self._scalar(node) if isinstance(node, ScalarNode) else None
        if not isinstance(key, str):
            shown = f"'{node.value}'" if isinstance(node, ScalarNode) else "of several values"
            raise self._wrong(node, f"the key {shown} is no text; put it into quotes")
        return key

    def _note(self, node: Node, value: Node, keys: Keys) -> None:
        start, end = cast("Any", value.start_mark), cast("Any", value.end_mark)
        text = None
        if isinstance(value, ScalarNode) and start.line == end.line:
            text = (start.line + 1, start.column + 1 + (value.style in ('"', "'")))
        mark = cast("Any", node.start_mark)
        self.places[keys] = Place(self._name, mark.line + 1, mark.column + 1, text)

    def _scalar(self, node: ScalarNode) -> str | int | float | bool | None:
        text: str = node.value
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        try:
            match kind:
                case "str" | "timestamp" | "merge":  # YAML 1.2 knows no dates: they are text
                    if (
                        self._is_file
                    ):  # on a command line, paths that are not UTF-8 have such halves
                        text.encode()
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() in ("true", "yes", "on")
                case "int":
                    return _whole_number(text.replace("_", ""))
                case "float" if math.isfinite(number := float(text.replace("_", ""))):
                    return number
        except UnicodeEncodeError as error:
            raise self._wrong(node, "half of a surrogate pair is no text") from error
        except ValueError:
            pass
        raise self._wrong(
            node, f"{text[:40]} is no {kind} that is taken here; put it into quotes if it is text"
        )

    def _wrong(self, node: Node, what: str) -> SettingsError:
        return SettingsError(f"{self._at(node.start_mark)}: {what}")

    def _at(self, mark: Any) -> Place:  # noqa: ANN401
        return Place(self._name, mark.line + 1, mark.column + 1) if mark else Place(self._name)


def _plainly(what: str) -> str:
    return next((plain for begins, plain in _PLAINLY.items() if what.startswith(begins)), what)


def _whole_number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = int(text, 0)
    if abs(number) > _LARGEST:
        raise ValueError("too large")
    return number
