"""The worker that has our own server answer many clients: `python benchmarks/ours_load.py JOB`."""

import json
import sys

from load import served
from own_server import own_server


def main() -> None:
    job = json.loads(sys.argv[1])
    server = own_server(job["model"], f"local.generation.dtype={job['dtype']}")
    print(json.dumps(served(server, job)))


if __name__ == "__main__":
    main()
