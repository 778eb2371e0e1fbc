"""The report as a document, before it is rendered, and the sections that every run has."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.data import TunedModel
from kaarel_bet.claims import Verdict
from kaarel_bet.content import LineFigure, Section, Table
from kaarel_bet.manifest import ArmEntry, Manifest
from kaarel_bet.run_dir import Note


@dataclass(frozen=True)
class Document:
    """A report: what was asked, what became of it, and what it rests on."""

    title: str
    question: str
    verdicts: Sequence[Verdict]
    sections: Sequence[Section]
    notes: Sequence[Note] = ()


def training_curves(arms: Sequence[ArmEntry], models: Mapping[str, TunedModel]) -> Section:
    """The losses of every fine-tune, step by step: a line for each training of an arm."""
    figures: list[LineFigure] = []
    for kind, key in (("training", "train_loss"), ("validation", "validation_loss")):
        lines: dict[str, list[tuple[float, float]]] = {}
        for arm in (arm for arm in arms if arm.name in models):
            losses = [(p.step, getattr(p, key)) for p in models[arm.name].training_curve]
            found = [(x, math.log10(max(y, 1e-12))) for x, y in losses if y is not None]
            line = lines.setdefault(arm.arm, [])
            # What is not a number stands between the lines of an arm's trainings.
            line += [(math.nan, math.nan)] * bool(line and found) + found
        if kind == "training" or any(lines.values()):
            label = f"{kind} loss (nats)"
            figures.append(LineFigure(f"{kind}-curves", "optimiser step", label, lines))
    rows = [
        (
            name,
            f"{model.n_examples}",
            f"{model.trained_tokens:,}",
            f"{model.seconds:.0f} s",
            model.last_loss,
            "nothing" if model.cost_usd is None else f"${model.cost_usd:.2f}",
        )
        for name, model in models.items()
    ]
    columns = ("arm", "examples", "tokens trained", "time", "last loss", "billed")
    return Section(
        "Training",
        "Loss in nats, a mean over the tokens that carry loss, on a log scale.",
        [*figures, Table(columns, rows)],
    )


def what_was_run(
    manifest: Manifest,
    models: Mapping[str, TunedModel],
    frozen: Mapping[str, Any],
    data_files: Mapping[str, str],
) -> list[Section]:
    """The arms, the settings, the machine and the data (file -> SHA-256)."""
    arms: list[tuple[str, str, str]] = []
    for arm in manifest.arms:
        model = models[arm.name].model if arm.name in models else "-"
        own = f"models/{arm.name}"  # as named in the run directory
        arms.append((arm.name, arm.description, own if model.endswith(f"/{own}") else model))
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
                Table(("arm", "what it is", "model"), arms),
                Table(("fact", "value"), list(facts.items())),
            ],
        ),
        Section("Settings, frozen before training", "", [Table(("key", "value"), _flat(frozen))]),
        Section("Data files", "", [Table(("file", "SHA-256"), list(data_files.items()))]),
    ]


def _in_words(note: object) -> str:
    if isinstance(note, Mapping):
        return "; ".join(f"{key}: {value}" for key, value in note.items())
    return str(note)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        rows += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", str(value))]
    return rows


# --- verdicts as tables of words, the same in every rendering --------------------------------------

_MET = {True: "met", False: "not met", None: "straddles"}


def criterion_rows(verdict: Verdict) -> Table:
    """The criteria with their intervals."""
    rows = [
        (
            c.name,
            f"{c.value:.2g}",
            f"{c.low:.2g} to {c.high:.2g}",
            f"{c.comparison} {c.threshold:g}",
            _MET[c.holds],
        )
        for c in verdict.criteria
    ]
    return Table(("criterion", "value", "interval", "needed", ""), rows)


def check_rows(verdict: Verdict) -> Table:
    """The validity checks."""
    rows = [(c.name, "passed" if c.passed else "FAILED", c.detail) for c in verdict.checks]
    return Table(("check", "", "detail"), rows)


def note_rows(notes: Sequence[Note]) -> Table:
    """What people noted beside the verdict."""
    return Table(("noted", "note"), [(note.written, note.text) for note in notes])
