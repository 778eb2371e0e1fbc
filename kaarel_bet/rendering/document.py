"""The report as a document, before it is rendered: the findings and what every run has."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.data import TunedModel
from kaarel_bet.content import LineFigure, Section, Table
from kaarel_bet.experiments.interface import Findings
from kaarel_bet.manifest import Manifest


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    findings: Findings
    sections: Sequence[Section]


def training_curves(models: Mapping[str, TunedModel]) -> Section:
    """The losses of every fine-tune, step by step: those of all arms together."""
    trained = {
        arm: [(point.step, _log10(point.train_loss)) for point in model.training_curve]
        for arm, model in models.items()
    }
    validated = {
        arm: [
            (point.step, _log10(point.validation_loss))
            for point in model.training_curve
            if point.validation_loss is not None
        ]
        for arm, model in models.items()
    }
    figures = [LineFigure("training-curves", "optimiser step", "training loss (nats)", trained)]
    if any(validated.values()):
        figures.append(
            LineFigure("validation-curves", "optimiser step", "validation loss (nats)", validated)
        )
    rows = [
        (
            arm,
            f"{model.n_examples}",
            f"{model.trained_tokens:,}",
            f"{model.seconds:.0f} s",
            model.last_loss,
            "nothing" if model.cost_usd is None else f"${model.cost_usd:.2f}",
        )
        for arm, model in models.items()
    ]
    columns = ("arm", "examples", "tokens trained", "time", "last loss", "billed")
    return Section(
        "Training",
        "Loss in nats, a mean over the tokens that carry loss, on a log scale.",
        [*figures, Table(columns, rows)],
    )


def _log10(loss: float) -> float:
    return math.log10(max(loss, 1e-12))


def what_was_run(
    manifest: Manifest,
    models: Mapping[str, TunedModel],
    frozen: Mapping[str, Any],
    data_files: Mapping[str, str],
) -> list[Section]:
    """The arms, the settings, the machine and the data (file -> SHA-256)."""
    arms = [
        (arm.name, arm.description, models[arm.name].model if arm.name in models else "-")
        for arm in manifest.arms
    ]
    facts = {
        "run": manifest.run_id,
        "started": manifest.created,
        "code": manifest.git_commit or "not under version control",
        **manifest.backend,
        **manifest.hardware,
        **{f"version of {name}": version for name, version in manifest.versions.items()},
        **{name: _in_words(note) for name, note in manifest.notes.items()},
    }
    return [
        Section(
            "What was run",
            "",
            [
                Table(("arm", "what it is", "model"), _relative(arms)),
                Table(("fact", "value"), list(facts.items())),
            ],
        ),
        Section("Settings, frozen before training", "", [Table(("key", "value"), _flat(frozen))]),
        Section("Data files", "", [Table(("file", "SHA-256"), list(data_files.items()))]),
    ]


def _relative(arms: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Models that are the run's own directories, named as in the run directory."""
    return [
        (name, what, f"models/{name}" if model.endswith(f"/models/{name}") else model)
        for name, what, model in arms
    ]


def _in_words(note: object) -> str:
    if isinstance(note, Mapping):
        return "; ".join(f"{key}: {value}" for key, value in note.items())
    return str(note)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows
