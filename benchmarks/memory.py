"""A process's own peak memory."""

import re
import resource
from pathlib import Path


def peak_bytes() -> int:
    """Peak resident memory.

    Not `ru_maxrss` where there is another way: Linux counts into it what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists() and (
        found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
    ):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
