"""How long prompts are: what is longer than the limit is left out and counted, never cut."""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.data import TrainingExample
from kaarel_bet.experiments.arc.augmentation import SYMMETRY_NAMES, Augmentation
from kaarel_bet.experiments.arc.encodings import Encoding, encode
from kaarel_bet.experiments.arc.grids import ArcTask, Grid
from kaarel_bet.experiments.arc.prompts import training_examples
from kaarel_bet.experiments.interface import Tokenize

_ON_ITS_SIDE = Augmentation(symmetry=SYMMETRY_NAMES.index("transpose"))


@dataclass(frozen=True)
class Lengths:
    """Counts the tokens of a task's texts, prompt and answer; a chat template's own come on top."""

    tokenize: Tokenize
    encoding: Encoding
    limit: int

    def fits(self, task: ArcTask) -> bool:
        """Whether each of the task's prompts is, with its answer, within the limit, however turned.

        Rows end with a token of their own, so that a wide grid is longer on its side.
        """
        return all(
            self.example_fits(example)
            for form in (task, _ON_ITS_SIDE.apply_task(task))
            for example in training_examples(form, self.encoding)
        )

    def example_fits(self, example: TrainingExample) -> bool:
        """Whether a chat is within the limit."""
        return sum(self.of(message.content) for message in example.messages or ()) <= self.limit

    def longest(self, grids: Iterable[Grid]) -> int:
        """The tokens of the longest of the grids, however turned."""
        return max(
            self.of(encode(form, self.encoding))
            for grid in grids
            for form in (grid, _ON_ITS_SIDE.apply(grid))
        )

    def of(self, text: str) -> int:
        """The tokens of one text."""
        return len(self.tokenize(text))
