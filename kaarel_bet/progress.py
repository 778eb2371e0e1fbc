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
def overview(
    console: Console, title: str, total: int
) -> Iterator[tuple[Callable[[str], Report], Callable[[int], None]]]:
    """Shows how many of a thousand works are done, and on a terminal those that are under way.

    Gives what begins a work under a title, which is under way from its first report to the one that says it
    has ended, and what tells how many are done.
    """
    if console.is_terminal:
        with _bars(console, passing=True) as begin:
            counted = _Counted(begin(title), total)
            yield counted.beginning(begin), counted.tell
    else:
        counted = _Counted(_lines(console, title), total)
        yield counted.beginning(lambda _: lambda *_: None), counted.tell


class _Counted:
    """Works that are done and under way, in one report."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total = report, total
        self._done = 0
        self._under_way = set[object]()

    def tell(self, done: int) -> None:
        """So many are done."""
        self._done = done
        self._show()

    def beginning(self, begin: Callable[[str], Report]) -> Callable[[str], Report]:
        """What begins a work that is counted, and shown from when it is under way."""

        def begin_one(title: str) -> Report:
            shown: Report | None = None
            work, ended = object(), False

            def report(done: int, total: int, details: str) -> None:
                nonlocal shown, ended
                if ended:  # what comes late from another machine
                    return
                if total and done >= total:
                    ended = True
                    self._under_way.discard(work)
                else:
                    self._under_way.add(work)
                    shown = shown or begin(title)
                if shown is not None:
                    shown(done, total, details)
                self._show()

            return report

        return begin_one

    def _show(self) -> None:
        self._report(self._done, self._total, f"{len(self._under_way)} under way")


@contextmanager
def _bars(console: Console, *, passing: bool = False) -> Iterator[Callable[[str], Report]]:
    """`passing` ones go once their work is done."""
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
                visible = not (passing and total and done >= total)
                bars.update(task, completed=done, total=total, details=details, visible=visible)

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
