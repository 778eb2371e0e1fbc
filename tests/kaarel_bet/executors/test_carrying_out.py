"""Tasks in their order, nothing twice at once, again what dies: on an executor that does as it is told."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from typing_extensions import override

from backends.data import TunedModel
from backends.errors import DataError, ExecutorError
from backends.interface import Backend
from kaarel_bet.executors.carrying_out import Work, carry_out
from kaarel_bet.executors.interface import Died, Executor
from kaarel_bet.executors.tasks import Questions, Task
from kaarel_bet.progress import Report

NOBODY = cast("Backend", None)


class Piece(Work):
    """Notes what becomes of it; a model that is there is not made again."""

    def __init__(self, title: str, there: set[str], after: "Piece | None" = None) -> None:
        self.title, self.after = title, after
        self._identity = title.partition(" ")[0]
        self._there = there
        self.became = ""

    @override
    def prepare(self, report: Report) -> Task | None:
        if self._identity in self._there:
            self.became = "taken over"
            return None
        return Task(NOBODY, Questions(self.title, ()), self._identity)

    @override
    def finish(self, tuned: TunedModel | None) -> None:
        self._there.add(self._identity)
        self.became = "done"

    @override
    def failed(self, error: Exception) -> Exception | None:
        self.became = "failed"
        return error


class Told(Executor):
    """Ends tasks by turns, the latest first, as `ends` says of their title."""

    attempts = 3
    is_here = False

    def __init__(
        self, ends: Callable[[str], BaseException | None], most_at_once: int = 100
    ) -> None:
        self.most_at_once = most_at_once
        self.begun: list[str] = []
        self.most_seen = 0
        self._ends = ends
        self._open: list[tuple[str, Future[Any]]] = []

    @override
    def submit(self, task: Task) -> Future[Any]:
        assert isinstance(task.work, Questions)
        self.begun.append(task.work.model)
        future: Future[Any] = Future()
        self._open.append((task.work.model, future))
        self.most_seen = max(self.most_seen, len(self._open))
        if len(self._open) == self.most_at_once:
            self.end_one()
        return future

    def end_one(self) -> None:
        title, future = self._open.pop()
        error = self._ends(title)
        future.set_exception(error) if error else future.set_result(None)

    @override
    def result(self, task: Task, done: Future[Any]) -> TunedModel | None:
        return done.result()

    @override
    def stop(self) -> str | None:
        return f"{len(self._open)} go on" if self._open else None


class AtOnce(Told):
    """Ends each as soon as it begins."""

    @override
    def submit(self, task: Task) -> Future[Any]:
        future = super().submit(task)
        if self._open:
            self.end_one()
        return future


def done(works: Sequence[Work], executor: Executor) -> str:
    """What was said while all of it was done."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    carry_out("test", works, executor, console, console.print)
    return out.getvalue()


def test_what_follows_waits_and_what_is_alike_is_done_once() -> None:
    there: set[str] = set()
    first = Piece("a of one", there)
    works = [Piece("b after", there, first), first, Piece("a of two", there), Piece("c", there)]
    executor = AtOnce(lambda _: None)
    done(works, executor)
    assert sorted(executor.begun) == ["a of one", "b after", "c"]
    assert executor.begun.index("a of one") < executor.begun.index("b after")
    assert [work.became for work in works] == ["done", "done", "taken over", "done"]


def test_what_is_alike_waits_for_the_one_that_is_under_way() -> None:
    there: set[str] = set()
    works = [Piece("a of one", there), Piece("a of two", there), Piece("c", there)]
    executor = Told(lambda _: None, most_at_once=2)  # "c" ends first, while "a of one" goes on

    class Later(Piece):
        @override
        def finish(self, tuned: TunedModel | None) -> None:
            super().finish(tuned)
            executor.end_one()

    works[2] = Later("c", there)
    done(works, executor)
    assert executor.begun == ["a of one", "c"]
    assert [work.became for work in works] == ["done", "taken over", "done"]


def test_never_more_at_once_than_the_executor_takes() -> None:
    executor = AtOnce(lambda _: None, most_at_once=3)
    done([Piece(str(n), set()) for n in range(20)], executor)
    assert executor.most_seen <= 3
    assert len(executor.begun) == 20


def test_what_dies_is_tried_again_and_its_reason_said() -> None:
    ends = iter([Died("node 7 is gone"), Died("lost"), None])
    executor = AtOnce(lambda _: next(ends))
    work = Piece("a", set())
    said = done([work], executor)
    assert executor.begun == ["a"] * 3
    assert work.became == "done"
    assert "a: attempt 1 of 3 died: node 7 is gone; once more" in said
    assert "a: attempt 2 of 3 died: lost; once more" in said


def test_what_dies_as_often_as_it_may_is_an_error_with_the_reason() -> None:
    executor = AtOnce(lambda title: Died("no memory") if title == "a" else None)
    with pytest.raises(ExecutorError, match="a: died 3 times, at last: no memory"):
        done([Piece("a", set())], executor)
    assert executor.begun == ["a"] * 3


def test_an_error_that_would_come_again_is_not_tried_again_and_nothing_more_is_begun() -> None:
    executor = AtOnce(lambda title: DataError("line 3") if title == "b" else None, most_at_once=1)
    works = [Piece(title, set()) for title in "abcd"]
    with pytest.raises(DataError, match="line 3"):
        done(works, executor)
    assert executor.begun == ["a", "b"]
    assert [work.became for work in works] == ["done", "failed", "", ""]


def test_what_is_under_way_when_another_fails_is_finished() -> None:
    executor = Told(lambda title: DataError("line 3") if title == "b" else None, most_at_once=2)

    class Ends(Piece):
        @override
        def failed(self, error: Exception) -> Exception | None:
            executor.end_one()
            return super().failed(error)

    works = [Piece("a", set()), Ends("b", set()), Piece("c", set())]
    with pytest.raises(DataError):
        done(works, executor)
    assert [work.became for work in works] == ["done", "failed", ""]


def test_what_goes_on_is_said_when_it_is_interrupted(tmp_path: Path) -> None:
    executor = AtOnce(lambda _: None)

    class Interrupts(Piece):
        @override
        def finish(self, tuned: TunedModel | None) -> None:
            executor._open.append(("another", Future()))
            raise KeyboardInterrupt

    out = io.StringIO()
    console = Console(file=out)
    with pytest.raises(KeyboardInterrupt):
        carry_out("test", [Interrupts("a", set())], executor, console, console.print)
    assert "1 go on" in out.getvalue()
