"""The worker that scores with lm-evaluation-harness's `local-completions`, pointed at our own server.

`python benchmarks/ours_served.py JOB`: the harness runs in its own environment, the server in this one.
The memory is that of the larger of the two.
"""

import json
import resource
import subprocess
import sys

from own_server import own_server
from peer_environment import peer_command

HARNESS = ("lm-eval[hf,api]==0.4.13",)


def main() -> None:
    job = json.loads(sys.argv[1])
    with own_server(job["model"], f"local.scoring.dtype={job['dtype']}") as base_url:
        command = peer_command("lm_eval_served.py", HARNESS)
        done = subprocess.run(
            [*command, sys.argv[1], base_url], check=True, stdout=subprocess.PIPE, text=True
        )
    measured = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(json.dumps(measured | {"peak_bytes": largest}))


if __name__ == "__main__":
    main()
