"""What the arms are fine-tuned on."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from backends.data import TrainingExample
from kaarel_bet.experiments.arc.augmentation import (
    SYMMETRIES,
    Augmentation,
    exchanged,
    random_augmentation,
    shuffled,
)
from kaarel_bet.experiments.arc.encodings import Encoding
from kaarel_bet.experiments.arc.grids import ArcTask
from kaarel_bet.experiments.arc.lengths import Lengths
from kaarel_bet.experiments.arc.prompts import leave_one_out, training_examples
from kaarel_bet.experiments.arc.settings import AugmentationSettings

_Form = tuple[Augmentation, ArcTask]
"""A task, some of its pairs exchanged, and the symmetry that it is to be seen in."""


@dataclass
class TrainingSets:
    """Makes the arms' training examples, and counts what went into each."""

    encoding: Encoding
    lengths: Lengths
    augmentation: AugmentationSettings
    seed: int
    notes: dict[str, object] = field(default_factory=dict[str, object])

    def augmented(
        self, arm: str, tasks: Sequence[ArcTask], variants: int | None
    ) -> list[TrainingExample]:
        """Variants of each task: so many drawn at random, or all that exchange and symmetry give.

        Where there are fewer than are to be drawn, they come again, with other colours and orders.
        """
        rng = random.Random(f"augmentation/{arm}/{self.seed}")
        counts: Counter[str] = Counter(tasks=len(tasks))
        examples = []
        for task in tasks:
            forms = self._forms(task)
            counts["by symmetry"] += len({symmetry.symmetry for symmetry, _ in forms})
            counts["by exchange as well"] += len(forms)
            for form in forms if variants is None else _draw(forms, variants, rng):
                variant = self._varied(form, rng)
                counts["variants taken"] += 1
                if self.lengths.fits(variant):
                    examples += training_examples(variant, self.encoding)
                else:
                    counts["of these too long, left out"] += 1
        self.notes[f"training set of {arm}"] = dict(counts) | {"examples": len(examples)}
        return examples

    def once(self, tasks: Sequence[ArcTask]) -> list[TrainingExample]:
        """The tasks as they are."""
        return [e for task in tasks for e in training_examples(task, self.encoding)]

    def plain(
        self, arm: str, tasks: Sequence[ArcTask], like: Sequence[TrainingExample]
    ) -> list[TrainingExample]:
        """The tasks as they are, over and over until there are as many examples as in `like`.

        So arms with and without augmentation see the same number of examples.
        """
        once = self.once(tasks)
        times = max(1, round(len(like) / len(once)))
        self.notes[f"training set of {arm}"] = {
            "tasks": len(tasks),
            "each example, times": times,
            "examples": times * len(once),
        }
        return once * times

    def test_time(self, arm: str, tasks: Sequence[ArcTask], variants: int) -> list[TrainingExample]:
        """Variants of what is left when one of a task's examples is taken for the test.

        Akyürek et al. 2024 (arXiv:2411.07279); the test inputs themselves are never among them.
        """
        return self.augmented(
            arm, [left for task in tasks for left in leave_one_out(task)], variants
        )

    def _forms(self, task: ArcTask) -> list[_Form]:
        """Every exchange of the task's pairs with every symmetry that it is to be seen in."""
        symmetries = SYMMETRIES if self.augmentation.symmetries else SYMMETRIES[:1]
        tasks = exchanged([task]) if self.augmentation.exchange else [task]
        return [(symmetry, variant) for variant in tasks for symmetry in symmetries]

    def _varied(self, form: _Form, rng: random.Random) -> ArcTask:
        symmetry, task = form
        task = symmetry.apply_task(task)
        if self.augmentation.colours:
            drawn = random_augmentation(rng, keep_background=self.augmentation.keep_background)
            task = Augmentation(symmetry=0, colours=drawn.colours).apply_task(task)
        return shuffled(task, rng) if self.augmentation.order else task


def _draw(forms: Sequence[_Form], n: int, rng: random.Random) -> list[_Form]:
    """As evenly as can be: none a second time before all were drawn once."""
    drawn: list[_Form] = []
    while len(drawn) < n:
        drawn += rng.sample(forms, min(len(forms), n - len(drawn)))
    return drawn
