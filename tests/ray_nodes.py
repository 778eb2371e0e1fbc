"""A Ray cluster on this machine, a loopback address a node, for tests; needs Ray (the extra `ray`).

`python ray_nodes.py N` prints the address; a line on standard input kills a node that is not the head, once
one of them is at work, and the end of input ends the cluster.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

# A machine of two cores may be busy: workers as nice as Ray makes them would hardly run.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

_AT_WORK = "ray::_perform"
"""What Ray calls a worker's process while it does one of our tasks."""
_PATIENCE_SECONDS = 600.0


def main() -> None:
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    logging.disable()
    cluster = Cluster()
    nodes = [
        cluster.add_node(
            node_ip_address=f"127.0.0.{2 + number}", num_cpus=1, include_dashboard=False
        )
        for number in range(int(sys.argv[1]))
    ]
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        node, worker = _held_at_work(nodes[1:])
        cluster.remove_node(node, allow_graceful=False)
        worker.kill()
        nodes.remove(node)
        print(f"killed, {len(nodes)} left", flush=True)
    cluster.shutdown()


def _held_at_work(nodes: Sequence[Any]) -> tuple[Any, psutil.Process]:
    """One of the nodes, and its worker that is held in the middle of a task."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for node in nodes:
            (raylet,) = node.all_processes["raylet"]
            for worker in psutil.Process(raylet.process.pid).children(recursive=True):
                if _is_held(worker):
                    return node, worker
        time.sleep(0.05)
    sys.exit("no node had a task to do")


def _is_held(worker: psutil.Process) -> bool:
    """Whether it was at work, and can't finish that any more."""
    with suppress(psutil.NoSuchProcess):
        if _is_at_work(worker):
            worker.suspend()
            if _is_at_work(worker):
                return True
            worker.resume()
    return False


def _is_at_work(worker: psutil.Process) -> bool:
    return any(word.startswith(_AT_WORK) for word in worker.cmdline())


if __name__ == "__main__":
    main()
