"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]
"""Called with what is done, what there is in all, and details."""

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(console: Console, title: str) -> Iterator[Report]:
    """Shows work under a title while the block runs."""
    with progresses(console) as begin:
        yield begin(title)


@contextmanager
def progresses(console: Console) -> Iterator[Callable[[str], Report]]:
    """Shows works side by side, each under the title that it begins with; threads may report them."""
    if console.is_terminal:
        with _bars(console) as begin:
            yield begin
    else:
        yield lambda title: _lines(console, title)


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str], Report]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:

        def begin(title: str) -> Report:
            task = bars.add_task(title, total=None, details="")

            def report(done: int, total: int, details: str) -> None:
                bars.update(task, completed=done, total=total, details=details)

            return report

        yield begin


def _lines(console: Console, title: str) -> Report:
    shown = time.monotonic()
    first: tuple[int, float] | None = None

    def report(done: int, total: int, details: str) -> None:
        nonlocal shown, first
        now = time.monotonic()
        first = first or (done, now)
        # What came before the first report (a model being loaded, say) is not the work's speed.
        first_done, started = first
        if done < total and now - shown < _SECONDS_BETWEEN_LINES:
            return
        shown = now
        left = ""
        if first_done < done < total:
            left = f", {(now - started) / (done - first_done) * (total - done):.0f} s left"
        line = f"{title}: {done}/{total}{', ' if details else ''}{details}{left}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return report
