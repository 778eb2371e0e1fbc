"""What is asked of a model by whoever waits for it elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.local.answers import GeneratedToken
from backends.local.sampling import Sampling
from backends.local.sequences import TokenScore

_MAX_PART_ROWS = 32
_MAX_PART_POSITIONS = 2**16
"""Of one request's answers under way: half of the device's, so that no request has it alone."""


@dataclass(eq=False)
class Request:
    """What is asked of one model (None is the base model).

    `fail` or the last `deliver` is the last that is called; the asker sets `cancelled`.
    """

    adapter: Path | None
    fail: Callable[[Exception], None]

    def __post_init__(self) -> None:
        self.cancelled = False
        self.done = False

    def give_up(self, error: Exception) -> None:
        """Fails it, unless it is over."""
        if not self.done:
            self.done = True
            self.fail(error)


@dataclass(eq=False)
class Generation(Request):
    """Answers to a prompt, worked on part by part; `deliver` is called with their new tokens."""

    prompt: Sequence[int]
    sampling: Sampling
    deliver: Callable[[list[GeneratedToken]], None]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.samples = range(self._part_rows)
        """Those of the part that is next or under way."""
        self.unfinished = len(self.samples)

    @property
    def positions(self) -> int:
        """What the part's answers that are not finished may come to."""
        return self.unfinished * self._row_positions

    def finish(self, rows: int) -> bool:
        """Counts answers of the part as finished; whether that was its end.

        Then either the next part waits to be begun, or the request is `done`.
        """
        self.unfinished -= rows
        if self.unfinished:
            return False
        stop = self.samples.stop
        self.samples = range(stop, min(stop + self._part_rows, self.sampling.n))
        self.unfinished = len(self.samples)
        self.done = self.unfinished == 0
        return True

    @property
    def _row_positions(self) -> int:
        return len(self.prompt) + self.sampling.max_tokens

    @property
    def _part_rows(self) -> int:
        most = min(_MAX_PART_ROWS, _MAX_PART_POSITIONS // self._row_positions)
        return min(self.sampling.n, max(1, most))


@dataclass(eq=False)
class PromptScoring(Request):
    """Scores of all tokens of a text but the first; it has at least two."""

    tokens: Sequence[int]
    top: int
    deliver: Callable[[list[TokenScore]], None]
