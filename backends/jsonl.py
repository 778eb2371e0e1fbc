"""Reading and appending JSONL with errors that name the file and the line."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from backends.errors import DataError
from backends.schema import explain

Record = TypeVar("Record")


def dumps(record: BaseModel) -> str:
    """One record as one line of JSON, absent optional fields left out."""
    return record.model_dump_json(exclude_none=True)


def read_jsonl(
    path: Path, kind: TypeAdapter[Record], *, unfinished_ok: bool = False
) -> list[Record]:
    """Every record of the file, as `parse`.

    With `unfinished_ok` a last line without its newline, as a killed `AppendOnlyFile` leaves it, is passed
    over.

    Raises:
        DataError: the file can't be read, is empty, or a line is not a record of this kind.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    whole = content[: content.rfind(b"\n") + 1] if unfinished_ok else content
    records = parse(whole, kind, where=f"{path}, line")
    if not records and not unfinished_ok:
        raise DataError(f"{path}: no records in it")
    return records


def parse(content: bytes, kind: TypeAdapter[Record], *, where: str) -> list[Record]:
    """Every record of a file's content, which may have none.

    A byte order mark and blank lines at the end are passed over, as editors leave them.

    Raises:
        DataError: a line is not a record of this kind; the message starts with `where` and its number.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where} {line}: not UTF-8 text") from error
    # Only "\n" ends a line: str.splitlines would also split at separators allowed inside JSON strings.
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [parse_line(line, kind, where=f"{where} {n}") for n, line in enumerate(lines, 1)]


def parse_line(line: str, kind: TypeAdapter[Record], *, where: str) -> Record:
    """One line as a record.

    Raises:
        DataError: the line is not JSON or not a record of this kind; the message starts with `where`.
    """
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        raise DataError(f"{where}: {explain(error)}") from error


def lines(records: Iterable[BaseModel]) -> str:
    """The records as a file's text."""
    return "".join(dumps(record) + "\n" for record in records)


class AppendOnlyFile:
    """A JSONL file that is written record by record and survives being killed at any moment.

    A last line without its newline is the mark of a writer that was killed: it is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that after a failed write nothing waits to be written on closing.
        self._file = path.open("ab+", buffering=0)
        self._cut_unfinished_line()

    def _cut_unfinished_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def append(self, records: Iterable[BaseModel]) -> None:
        """Writes the records and returns once they are on disk; a failed write leaves none of them."""
        start = self._file.seek(0, os.SEEK_END)
        rest = memoryview(lines(records).encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        """Nothing can be appended from now on."""
        self._file.close()

    def __enter__(self) -> "AppendOnlyFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
