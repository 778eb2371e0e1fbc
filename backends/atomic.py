"""Files that are whole or not there, however the writer ends."""

import os
import tempfile
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Puts a file in place in one step: a reader sees the old content or the new; it is on disk then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)  # mkstemp's is for one user only
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
