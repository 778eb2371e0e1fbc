"""The manifest: what a run is made of and where it was made."""

from typing import Any, Literal

from backends.interface import LossOn
from backends.schema import Strict

Kind = Literal["scoring", "generation", "search"]


class ArmEntry(Strict):
    """An arm as the manifest describes it; file names are relative to the run directory."""

    name: str
    description: str
    training_file: str | None
    validation_file: str | None
    loss_on: LossOn | None
    starts_from: str | None
    seed: int | None = None
    """Added to the run's."""


class EvaluationEntry(Strict):
    """An evaluation as the manifest describes it."""

    name: str
    description: str
    kind: Kind
    arms: tuple[str, ...]
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
    items_file: str | None = None
    sha256: dict[str, str]
