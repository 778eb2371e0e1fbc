"""A Ray cluster on this machine, a loopback address a node, for tests; needs Ray (the extra `ray`).

`python ray_nodes.py N` prints the address; a line on standard input kills a node that is not the head,
and the end of input ends the cluster.
"""

import logging
import os
import sys

# A machine of two cores may be busy: workers as nice as Ray makes them would hardly run.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


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
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print(f"killed, {len(nodes)} left", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
