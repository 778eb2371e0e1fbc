"""Files and directories that are whole or not there, however the writer ends."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"
"""What the names of files and directories end with until they are whole."""


def sweep(directory: Path) -> None:
    """Removes what killed writers left anywhere in a directory; nobody may be writing there."""
    for path in list(directory.rglob(f"*{UNFINISHED}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Puts a file in place in one step: a reader sees the old content or the new; it is on disk then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)  # mkstemp's is for one user only
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


@contextmanager
def directory(target: Path) -> Iterator[Path]:
    """A directory to be filled, which is put in the target's place when the block ends without an error.

    Its files are on disk then; of a block that fails nothing is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(UNFINISHED, f".{target.name}.", target.parent))
    try:
        yield working
        for path in filter(Path.is_file, working.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        working.chmod(0o755)  # mkdtemp's is for one user only
        shutil.rmtree(target, ignore_errors=True)
        working.rename(target)
    finally:
        shutil.rmtree(working, ignore_errors=True)
