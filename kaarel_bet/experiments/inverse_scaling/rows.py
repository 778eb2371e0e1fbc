"""Reading a task's rows from files in the forms that the Inverse Scaling Prize gave them.

JSONL, CSV or Parquet with `prompt`, `classes` (a list or its text) and `answer_index`; winobias has
`text` and `target` instead. Other columns (`part`, `round`, an index) are passed over.
"""

import ast
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.errors import DataError
from kaarel_bet.experiments.inverse_scaling.items import Row
from kaarel_bet.experiments.inverse_scaling.parquet import read_parquet

_PROMPTS = ("prompt", "text")
_ANSWERS = ("answer_index", "target")
_LONGEST_NUMBER = 100
"""Characters; Python refuses to read numbers of thousands."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, by its ending .jsonl, .csv or .parquet (which takes the extra `parquet`).

    Raises:
        DataError: the file can't be read, has no rows, or one that is no question; names file, line
            and field.
    """
    if path.suffix == ".parquet":
        named = enumerate(read_parquet(path), start=1)
        rows = [_row(record, f"{path}, row {number}") for number, record in named]
    elif path.suffix in (".jsonl", ".csv"):
        text = _text(path)
        records = _csv(text, path) if path.suffix == ".csv" else _jsonl(text, path)
        rows = [_row(record, f"{path}, line {line}") for line, record in records]
    else:
        raise DataError(f"{path}: must be a .jsonl, .csv or .parquet file")
    if not rows:
        raise DataError(f"{path}: no rows in it")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _csv(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    line = 1  # a quoted field may run over several lines: a row is named by its first
    try:
        _ = reader.fieldnames  # reads the header
        line = reader.line_num + 1
        for record in reader:
            yield line, {key: value for key, value in record.items() if key and value is not None}
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: not CSV ({error})") from error


def _jsonl(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: not an object with 'prompt', 'classes' ...")
        yield number, record


def _row(record: Mapping[str, Any], where: str) -> Row:
    prompt_field = _field(record, _PROMPTS, where)
    answer_field = _field(record, _ANSWERS, where)
    prompt = record[prompt_field]
    if not isinstance(prompt, str):
        raise DataError(f"{where}: {prompt_field}: must be text (got {_shown(prompt)})")
    classes = _classes(record[_field(record, ("classes",), where)], where)
    _check_characters(prompt, f"{where}: {prompt_field}")
    for text in classes:
        _check_characters(text, f"{where}: classes")
    answer = _whole_number(record[answer_field])
    if answer is None or not 0 <= answer < len(classes):
        raise DataError(
            f"{where}: {answer_field}: must be a whole number from 0 to {len(classes) - 1} "
            f"(got {_shown(record[answer_field])})"
        )
    return Row(prompt=prompt, classes=classes, answer=answer)


def _field(record: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    for name in names:
        if name in record:
            return name
    raise DataError(f"{where}: {' or '.join(names)}: missing")


def _check_characters(text: str, where: str) -> None:
    """JSON's and Python's escapes can write half of a character outside the basic plane."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {text[error.start]!a} is half of a surrogate pair, which is no character"
        ) from error


def _classes(value: object, where: str) -> tuple[str, ...]:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            parsed = None
    if not isinstance(parsed, list | tuple) or not all(isinstance(c, str) and c for c in parsed):
        raise DataError(f"{where}: classes: must be a list of texts (got {_shown(value)})")
    if len(parsed) < 2 or len(set(parsed)) < len(parsed):
        raise DataError(
            f"{where}: classes: must be two or more different texts (got {_shown(value)})"
        )
    return tuple(parsed)


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < _LONGEST_NUMBER:
        return int(value)
    return value if isinstance(value, int) else None


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} of many levels"
    return text if len(text) <= 40 else f"{text[:37]}..."
