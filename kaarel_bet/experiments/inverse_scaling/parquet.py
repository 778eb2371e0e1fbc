"""Reading .parquet files, for which pyarrow must be installed (the extra `parquet`)."""

from pathlib import Path
from typing import Any

from backends.errors import DataError


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The file's rows, column -> value.

    Raises:
        DataError: pyarrow is missing, or the file can't be read.
    """
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"{path}: reading .parquet takes pyarrow, which is not installed; "
            "`uv sync --extra parquet` installs it, and so does `pip install pyarrow`"
        ) from error
    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a .parquet file that can be read ({reason})") from error
