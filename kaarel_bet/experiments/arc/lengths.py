"""How long prompts are: what is longer than the limit is left out and counted, never cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.data import Message
from kaarel_bet.experiments.arc.encodings import Encoding
from kaarel_bet.experiments.arc.grids import ArcTask
from kaarel_bet.experiments.arc.prompts import training_examples
from kaarel_bet.experiments.interface import Tokenize


@dataclass(frozen=True)
class Lengths:
    """Counts the tokens of a task's texts, prompt and answer; a chat template's own come on top."""

    tokenize: Tokenize
    encoding: Encoding
    limit: int

    def fits(self, task: ArcTask) -> bool:
        """Whether each of the task's prompts is, with its answer, within the limit."""
        return all(
            self._tokens(example.messages or ()) <= self.limit
            for example in training_examples(task, self.encoding)
        )

    def of(self, text: str) -> int:
        """The tokens of one text."""
        return len(self.tokenize(text))

    def _tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.of(message.content) for message in messages)
