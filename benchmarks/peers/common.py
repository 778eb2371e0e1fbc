"""What the peers' workers share: reading the job's data, measuring memory, answering."""

import json
import resource
from pathlib import Path
from typing import Any

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def records(path: str) -> list[dict[str, Any]]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def answer(seconds: float, count: int, log_likelihoods: list[float] | None = None) -> None:
    """Prints what jobs.Measured takes."""
    if DEVICE == "cuda":
        peak_bytes = torch.cuda.max_memory_allocated()
    else:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured = {
        "seconds": seconds,
        "count": count,
        "peak_bytes": peak_bytes,
        "log_likelihoods": log_likelihoods,
    }
    print(json.dumps(measured))
