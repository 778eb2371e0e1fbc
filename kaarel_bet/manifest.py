"""The manifest: what a run is made of and where it was made."""

from typing import Any, Literal

from pydantic import Field

from backends.data import TrainingMethod
from backends.interface import LossOn
from backends.schema import Strict

Kind = Literal["scoring", "generation", "search"]


class ArmEntry(Strict):
    """One training of an arm (or the base) as the manifest describes it.

    `name` is the model's, unique in the run; `arm` and `replicate` (from 1) say what it is of. Names
    of files are relative to the run directory.
    """

    name: str
    arm: str
    replicate: int = 1
    role: str = "treatment"
    description: str
    training_file: str | None
    validation_file: str | None
    method: TrainingMethod = "supervised"
    loss_on: LossOn | None
    starts_from: str | None
    """The name of the model that it goes on from."""
    seed: int = 0
    """Added to the run's."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The arm's own, by dotted path."""


class EvaluationEntry(Strict):
    """An evaluation as the manifest describes it: one question, in one draw of its examples.

    `arms` are names of models. `replicate` says of which replicate its rows are, where they are one
    replicate's; else an answer belongs to the replicate of the model that gave it.
    """

    name: str
    question: str
    replicate: int | None = None
    draw: int = 1
    description: str
    kind: Kind
    arms: tuple[str, ...]
    table: str | None = None
    """The table that the rows are of, where they are one's."""
    queries_file: str
    n_queries: int


class FollowUps(Strict):
    """The evaluations that the experiment drew from the answers to the manifest's."""

    evaluations: tuple[EvaluationEntry, ...]
    sha256: dict[str, str]


class Manifest(Strict):
    """What a run is made of and where it was made; written once the data is complete."""

    run_id: str
    created: str
    seed: int
    git_commit: str | None
    versions: dict[str, str]
    hardware: dict[str, str]
    backend: dict[str, str]
    notes: dict[str, Any]
    arms: tuple[ArmEntry, ...]
    evaluations: tuple[EvaluationEntry, ...]
    tables: dict[str, str] = Field(default_factory=dict)
    """Table -> its file."""
    sha256: dict[str, str]
