"""Rows from files and from the Hugging Face hub.

Parquet is read by polars. CSV and JSONL are read by the standard library, which can name the line of a
mistake; polars takes a row that is too short, or a blank line, for one with empty cells, and fills up
chats, which are nested and differ from line to line, with nulls.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from backends.errors import DataError, KaarelBetError
from kaarel_bet.bet.schema import Hub

ENDINGS = (".jsonl", ".csv", ".parquet")

_LONGEST_NUMBER = 100
"""Characters; Python refuses to read numbers of thousands."""

Record = dict[str, Any]


def read_rows(path: Path) -> list[Record]:
    """The rows of a file by its ending; the cells of a CSV are all text.

    Raises:
        DataError: the file can't be read, has no rows, or one that `check_rows` refuses; names file and
            line.
    """
    return [row for _, row in read_placed(path)]


def read_placed(path: Path) -> list[tuple[str, Record]]:
    """The same, each row with its place: `FILE, line 3`, or `FILE, row 3` where there are no lines."""
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: must be a {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file")
    rows = [(f"{path}, {place}", row) for place, row in readers[path.suffix](path)]
    if not rows:
        raise DataError(f"{path}: no rows in it")
    check_rows(rows)
    return rows


def check_rows(
    placed: Sequence[tuple[str, Record]], wrong: type[KaarelBetError] = DataError, hint: str = ""
) -> None:
    """Raises `wrong` for a row of other columns than the first's, and a value that JSON can't hold."""
    columns = placed[0][1].keys()
    for place, row in placed:
        if odd := sorted(row.keys() ^ columns):
            raise wrong(f"{place}: other columns than the first row's ({', '.join(odd)}){hint}")
        for column, value in row.items():
            # Printing the message must not fail on what it is about.
            where = f"{place}: {column}".encode(errors="backslashreplace").decode()
            try:
                json.dumps([column, value], ensure_ascii=False, allow_nan=False).encode()
            except UnicodeEncodeError as error:
                half = ascii(error.object[error.start])
                raise wrong(
                    f"{where}: {half} is half of a surrogate pair, which is no character"
                ) from error
            except (TypeError, ValueError, RecursionError) as error:
                raise wrong(
                    f"{where}: must be text, a finite number, a list or a mapping (got {shown(value)})"
                ) from error


def place_among(
    options: Sequence[object], value: object, where: str, wrong: type[KaarelBetError] = DataError
) -> int:
    """A whole number, or its text, as the place of an option. Raises `wrong` if it is of none."""
    place = value
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < _LONGEST_NUMBER:
        place = int(value)
    if isinstance(place, int) and not isinstance(place, bool) and 0 <= place < len(options):
        return place
    what = f"must be a whole number from 0 to {len(options) - 1} (got {shown(value)})"
    raise wrong(f"{where}: {what}")


def shown(value: object) -> str:
    """A value in an error's one line."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} of many levels"
    return text if len(text) <= 40 else f"{text[:37]}..."


def from_hub(hub: Hub, instead: str) -> Path:
    """A dataset's file, brought here; `instead` is what to do without a hub.

    Raises:
        DataError: the hub can't be reached, or has no one file to read.
    """
    from huggingface_hub import HfApi, hf_hub_download  # takes a second to import

    try:
        files = HfApi().list_repo_files(hub.path, repo_type="dataset")
        path = hf_hub_download(hub.path, _usable(files, hub, instead), repo_type="dataset")
    except DataError:
        raise
    except Exception as error:  # of several HTTP libraries
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise DataError(
            f"{hub.path}: the hub can't be reached{offline}: {type(error).__name__}; {instead}"
        ) from error
    return Path(path)


def _usable(files: Sequence[str], hub: Hub, instead: str) -> str:
    """The one file with rows, Parquet where there is no other; of several, that of the split."""
    of_name = [file for file in files if hub.name is None or hub.name in Path(file).parts]
    texts = [file for file in of_name if file.endswith(ENDINGS[:2])]
    found = texts or [file for file in of_name if file.endswith(ENDINGS[2:])]
    if len(found) > 1:
        found = [file for file in found if hub.split in Path(file).stem] or found
    if len(found) == 1:
        return found[0]
    of = "files, not one"
    raise DataError(f"{hub.path} has {len(found)} .jsonl, .csv or .parquet {of}; {instead}")


def _jsonl(path: Path) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not an object with the row's columns")
        yield f"line {number}", row


def _csv(path: Path) -> Iterator[tuple[str, Record]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    columns: list[str] = []
    line = 1  # a quoted cell may run over several lines: a row is named by its first
    try:
        for cells in reader:
            if not columns:
                columns = cells
                named = [name for name in columns if name]  # without a name: a writer's index
                if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
                    raise DataError(
                        f"{path}, line {line}: one column; cells must be set off by commas"
                    )
                if len(set(named)) < len(named):
                    raise DataError(f"{path}, line {line}: two columns have the same name")
            elif cells and len(cells) != len(columns):
                raise DataError(
                    f"{path}, line {line}: {len(cells)} cells where the first line names "
                    f"{len(columns)} columns; a comma inside a cell needs quotes around the cell"
                )
            elif cells:  # a blank line has none
                row = dict(zip(columns, cells, strict=True))
                yield f"line {line}", {name: cell for name, cell in row.items() if name}
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: not CSV ({error})") from error


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    import polars  # half a second that other files need not wait for

    # As bytes: of a path, polars would take * for several files and key=value for columns.
    content = io.BytesIO(_bytes(path))
    try:
        rows = polars.read_parquet(content).to_dicts()
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a .parquet file that can be read ({reason})") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
