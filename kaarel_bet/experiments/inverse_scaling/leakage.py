"""Whether what is tested stands in what may be trained on, exactly or modulo numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from kaarel_bet.experiments.inverse_scaling.items import Item, normal, numbers, skeleton


@dataclass(frozen=True)
class Leakage:
    """How many test items share something with a training item."""

    n_test: int
    prompt: int
    wording: int
    """The prompt modulo numbers."""
    numbers: int
    """Every number of the prompt, whatever the wording; prompts without numbers are not counted."""


def audit(train: Sequence[Item], test: Sequence[Item]) -> Leakage:
    """Compares all training rows with all test rows; white space and case don't tell prompts apart."""
    prompts = {normal(item.prompt) for item in train}
    wordings = {skeleton(prompt) for prompt in prompts}
    seen = {tuple(sorted(numbers(item.prompt))) for item in train}
    return Leakage(
        n_test=len(test),
        prompt=sum(normal(item.prompt) in prompts for item in test),
        wording=sum(skeleton(normal(item.prompt)) in wordings for item in test),
        numbers=sum(
            bool(own) and own in seen
            for own in (tuple(sorted(numbers(item.prompt))) for item in test)
        ),
    )
