"""What the arms are fine-tuned on."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from backends.data import TrainingExample
from kaarel_bet.experiments.arc.augmentation import exchanged, recoloured, shuffled, symmetric
from kaarel_bet.experiments.arc.encodings import Encoding
from kaarel_bet.experiments.arc.grids import ArcTask
from kaarel_bet.experiments.arc.lengths import Lengths
from kaarel_bet.experiments.arc.prompts import leave_one_out, training_examples
from kaarel_bet.experiments.arc.settings import AugmentationSettings


@dataclass
class TrainingSets:
    """Makes the arms' training examples, and counts what went into each."""

    encoding: Encoding
    lengths: Lengths
    augmentation: AugmentationSettings
    seed: int
    notes: dict[str, object] = field(default_factory=dict[str, object])

    def augmented(
        self,
        arm: str,
        tasks: Sequence[ArcTask],
        variants: int | None,
        *,
        exchange: bool | None = None,
    ) -> list[TrainingExample]:
        """Variants of each task: so many drawn at random, or all that exchange and symmetry give.

        `exchange` overrides the settings. Where there are fewer than are to be drawn, they come again, with
        other colours and orders.
        """
        rng = random.Random(f"augmentation/{arm}/{self.seed}")
        exchange = self.augmentation.exchange if exchange is None else exchange
        counts: Counter[str] = Counter(tasks=len(tasks))
        examples = []
        for task in tasks:
            turned = symmetric([task]) if self.augmentation.symmetries else [task]
            forms = exchanged(turned) if exchange else turned
            counts["by symmetry"] += len(turned)
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
        left = [form for task in tasks for form in leave_one_out(task)]
        # Exchanging pairs would leave out another one than is to be.
        return self.augmented(arm, left, variants, exchange=False)

    def _varied(self, task: ArcTask, rng: random.Random) -> ArcTask:
        if self.augmentation.colours:
            task = recoloured(task, rng, keep_background=self.augmentation.keep_background)
        return shuffled(task, rng) if self.augmentation.order else task


def _draw(forms: Sequence[ArcTask], n: int, rng: random.Random) -> list[ArcTask]:
    """As evenly as can be: none a second time before all were drawn once."""
    drawn: list[ArcTask] = []
    while len(drawn) < n:
        drawn += rng.sample(forms, min(len(forms), n - len(drawn)))
    return drawn
