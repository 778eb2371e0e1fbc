"""`transformers serve` answers many clients: `[OPTION ...] JOB`, the options its own; see ../jobs.py."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from load import served


def main() -> None:
    *options, text = sys.argv[1:]
    job = json.loads(text)
    print(json.dumps(served(_server(job, options), job)))


@contextmanager
def _server(job: dict, options: list[str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, port = address.split(":")
    flags = ["--host", host, "--port", port, "--device", "cpu", "--dtype", job["dtype"]]
    command = ["transformers", "serve", job["model"], *flags, *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            while process.poll() is None and not _healthy(address):
                time.sleep(0.5)
            yield f"http://{address}/v1"
        finally:
            process.terminate()


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
