"""How fast a training goes and which of its steps get an event."""

import math
import time

from backends.interface import Progress

_EVENTS = 1000


class Pace:
    """Watches one training from the first report on, which is where loading the model has ended."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def estimated_finish(self, progress: Progress) -> int | None:
        """Unix time; None until a step was seen to take time."""
        clock = time.monotonic()
        if self._first is None:
            self._first = (clock, progress.done)
        started, done_before = self._first
        steps = progress.done - done_before
        if steps == 0:
            return None
        left = (clock - started) / steps * (progress.total - progress.done)
        return math.ceil(time.time() + left)

    def worth_telling(self, progress: Progress) -> bool:
        """Every step of a short training; of a long one about a thousand in all."""
        every = math.ceil(progress.total / _EVENTS)
        return progress.done % every == 0 or progress.done == progress.total
