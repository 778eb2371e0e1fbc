"""llama.cpp's server answers many clients, from the GGUF file that our model comes from; see ../jobs.py.

`JOB` asks it; `--serve JOB` is the server, a process of its own, which says its address and lives on.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))


def main() -> None:
    job = json.loads(sys.argv[-1])
    if sys.argv[1] == "--serve":
        serve(job)
    else:
        from load import served

        print(json.dumps(served(_server(job), job)))


def serve(job: dict) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = job["gguf"]
    parameters.n_parallel = job["clients"]
    # Of each client 512; it divides the context among them.
    parameters.n_ctx = 512 * job["clients"]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    threading.Event().wait()


@contextmanager
def _server(job: dict) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", json.dumps(job)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
