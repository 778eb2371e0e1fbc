"""Checkpoints: everything a killed training needs to go on to the very same weights.

A checkpoint is one safetensors file (no pickle): adapter weights, AdamW's moments and the random
number generators as tensors, the rest as JSON in the header. It is replaced atomically.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from backends.atomic import UNFINISHED
from backends.data import CurvePoint

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """How far a training has come; `seconds` adds up over all the processes that worked on it."""

    fingerprint: str
    step: int = 0
    seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)


_STATE = TypeAdapter(TrainingState)


def save_checkpoint(
    path: Path,
    state: TrainingState,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Replaces the checkpoint. Raises OSError when it can't be written; the old one then stays."""
    tensors = {f"parameter/{name}": p.detach().cpu().contiguous() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        # One that had no gradient yet (an expert that no token was sent to) has none.
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = value.cpu()
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(UNFINISHED)
    try:
        save_file(tensors, partial, metadata={"state": _STATE.dump_json(state).decode()})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(
    path: Path,
    fingerprint: str,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> TrainingState:
    """Puts parameters, optimizer and random generators back as they were; returns the state.

    Without a checkpoint, or with one that can't be read or is of another job (another fingerprint),
    nothing is touched and the state is that of a training about to start.
    """
    try:
        opened = safe_open(path, framework="pt")
    except (FileNotFoundError, SafetensorError):
        return TrainingState(fingerprint)
    with opened as file:
        state = _STATE.validate_json(file.metadata()["state"])
        if state.fingerprint != fingerprint:
            return TrainingState(fingerprint)
        for name, parameter in parameters.items():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"parameter/{name}"))
            if f"step/{name}" not in file.keys():  # noqa: SIM118 - not a dict
                continue
            moments = {m: file.get_tensor(f"{m}/{name}") for m in _MOMENTS}
            # AdamW keeps its step count on the CPU, the moments beside the parameter.
            optimizer.state[parameter] = {
                m: t if m == "step" else t.to(parameter.device) for m, t in moments.items()
            }
        torch.set_rng_state(file.get_tensor("random/cpu"))
        if "random/cuda" in file.keys():  # noqa: SIM118 - not a dict
            torch.cuda.set_rng_state(file.get_tensor("random/cuda"))
    return state
