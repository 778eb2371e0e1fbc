"""Trainings side by side: how many, and which part of the machine each one gets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import psutil
import torch

from backends.interface import Estimate, Place

_WORTH_SECONDS = 60.0
"""Of a training, at the least: a process takes seconds to start and to load its model, and of two trainings
of half a minute nothing was gained (benchmarks/run.py --only "six trainings")."""
_MOST_IN_ONE_PASS = 8
_CGROUP = Path("/sys/fs/cgroup")


def workers(
    chosen: int | Literal["auto"],
    device: torch.device,
    estimates: Sequence[Estimate],
    *,
    one_pass: bool = False,
) -> int:
    """How many of these trainings may be under way at once, by what is chosen and the memory there is.

    "auto" is one a GPU; on the CPU one a thread, where that is worth it: the steps of two trainings with a
    thread each took 0.76 of the time of one after the other with two, on two quiet cores. In one pass,
    which is on one device, it is as many as have room, and eight at the most.
    """
    if chosen == "auto":
        chosen = _MOST_IN_ONE_PASS if one_pass else _auto(device, estimates)
    wanted = min(len(estimates), chosen)
    needed = sorted((e.memory_bytes or 0 for e in estimates), reverse=True)
    while wanted > 1 and not _fit(needed[:wanted], device, one_pass=one_pass):
        wanted -= 1
    return max(1, wanted)


def _auto(device: torch.device, estimates: Sequence[Estimate]) -> int:
    if device.type == "cuda":
        return torch.cuda.device_count()
    seconds = sum(estimate.seconds or 0.0 for estimate in estimates)
    is_worth_it = seconds >= _WORTH_SECONDS * len(estimates)
    return torch.get_num_threads() if device.type == "cpu" and is_worth_it else 1


def _fit(needed: Sequence[int], device: torch.device, *, one_pass: bool) -> bool:
    """Whether trainings that need so many bytes fit, the largest first, each in its place."""
    if device.type != "cuda":
        return sum(needed) <= free_bytes()
    count = 1 if one_pass else torch.cuda.device_count()
    if len(needed) <= count:
        return True  # alone on its GPU: that it fits there is not a question of how many there are
    free = [torch.cuda.mem_get_info(number)[0] for number in range(count)]
    return all(sum(needed[number::count]) <= free[number] for number in range(count))


def free_bytes() -> float:
    """What can be had without swapping, within what the container may have."""
    return min(psutil.virtual_memory().available, _free_in_container())


def _free_in_container() -> float:
    """By Linux's control groups, version 2; what the file cache holds is given back when it is needed."""
    try:
        most = int((_CGROUP / "memory.max").read_text())  # "max" where nothing limits it
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return most - used + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return float("inf")


def threads(device: torch.device, place: Place) -> int | None:
    """How many threads a place of the CPU has, None on another device."""
    return max(1, torch.get_num_threads() // place.of) if device.type == "cpu" else None


def environment(device: torch.device, place: Place) -> dict[str, str]:
    """The variables of a place's process: of several GPUs it sees its own."""
    if device.type != "cuda":
        return dict(os.environ)
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return {**os.environ, "CUDA_VISIBLE_DEVICES": names[place.number % count]}
