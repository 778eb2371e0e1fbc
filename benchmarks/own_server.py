"""`kaarel-bet serve` on this machine, with data of its own.

with own_server(MODEL) as base_url: ...
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_server(model: str, *settings: str) -> Iterator[str]:
    """Its base URL, while it runs; `settings` are assignments as `--set` takes them.

    Raises:
        RuntimeError: it did not start.
    """
    with tempfile.TemporaryDirectory() as directory:
        words = [
            "serve",
            "--port",
            "0",
            "--model",
            model,
            "--data-dir",
            str(Path(directory, "data")),
        ]
        sets = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "kaarel_bet", *words, *sets]
        log = Path(directory, "log")
        # A file: a pipe that nobody reads would fill up and stop the server.
        with (
            log.open("w", encoding="utf-8") as written,
            subprocess.Popen(command, stderr=written) as process,
        ):
            try:
                yield _address(process, log)
            finally:
                process.terminate()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        if found := re.search(r"serving .* at (http\S+)\n", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text(encoding='utf-8')}")
