"""Settings of executors on other machines; config.yaml says what each is for."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from backends.schema import Positive, Strict

Amount = Annotated[float, Field(ge=0)]


class RaySettings(Strict):
    """Tasks of a Ray cluster."""

    address: Annotated[str, Field(min_length=1)] | None = None
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    cpus: Amount = 1.0
    gpus: Amount = 0.0
    attempts: Positive = 3
    most_at_once: Positive = 1000


class SlurmSettings(Strict):
    """Jobs of Slurm, by submitit; `parameters` are those of its AutoExecutor."""

    cluster: Literal["slurm", "local"] = "slurm"
    folder: Annotated[Path, Field(strict=False)] | None = None
    cpus: Positive = 1
    gpus: Annotated[int, Field(ge=0)] = 0
    minutes: Positive = 60
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    attempts: Positive = 3
    most_at_once: Positive = 1000
