"""Which arm is asked what: the names of arms and evaluations, and the conditions that they make up."""

from dataclasses import dataclass
from typing import Literal

from kaarel_bet.experiments.inverse_scaling.settings import InverseScalingSettings

Kind = Literal["zero_shot", "few_shot", "fine_tuned", "placebo"]

BASE = "base"
TEST = "test"
FORGETTING = "forgetting"


@dataclass(frozen=True)
class Run:
    """One arm's answers to one evaluation."""

    arm: str
    evaluation: str


@dataclass(frozen=True)
class Condition:
    """What is compared: its runs differ by chance alone (the seed, or the draw of examples)."""

    kind: Kind
    title: str
    size: int
    """Rows that it is trained on."""
    runs: tuple[Run, ...]


def tuned(size: int, seed: int) -> str:
    """The arm fine-tuned on so many rows."""
    return f"tuned-{size}-seed-{seed}"


def placebo(seed: int) -> str:
    """The arm fine-tuned on random labels."""
    return f"placebo-seed-{seed}"


def only(number: int) -> str:
    """The arm fine-tuned on one template."""
    return f"only-template-{number}"


def few_shot(draw: int) -> str:
    """The evaluation with one draw of examples in the prompt."""
    return f"few-shot-draw-{draw}"


def training_rows(arm: str) -> str:
    """The evaluation that asks an arm what it was trained on."""
    return f"training-rows-of-{arm}"


def other_task(task: str) -> str:
    """The evaluation on another task's rows."""
    return f"task-{task.replace('_', '-')}"


def conditions(settings: InverseScalingSettings) -> list[Condition]:
    """All of them, by what is done to the model."""
    tune, shots = settings.fine_tune, settings.few_shot
    seeds, largest = range(tune.seeds), max(tune.sizes)
    drawn = tuple(Run(BASE, few_shot(draw)) for draw in range(shots.draws))
    found = [
        Condition("zero_shot", "zero-shot", 0, (Run(BASE, TEST),)),
        Condition("few_shot", f"{shots.shots}-shot", 0, drawn),
    ]
    for size in sorted(tune.sizes):
        runs = tuple(Run(tuned(size, seed), TEST) for seed in seeds)
        found.append(Condition("fine_tuned", f"fine-tuned on {size}", size, runs))
    if tune.placebo:
        runs = tuple(Run(placebo(seed), TEST) for seed in seeds)
        found.append(Condition("placebo", f"random labels, {largest}", largest, runs))
    return found
