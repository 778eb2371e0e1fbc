"""Has tasks done by an executor: in their order, nothing twice at once, and again what dies."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Protocol

from rich.console import Console

from backends.data import TunedModel
from backends.errors import ExecutorError
from kaarel_bet.executors.interface import Died, Executor
from kaarel_bet.executors.tasks import Task
from kaarel_bet.progress import Report, overview, progresses


class Work(Protocol):
    """A piece of a step's work that is one task, once it may begin."""

    title: str
    after: "Work | None"
    """What has to be finished before."""

    def prepare(self, report: Report) -> Task | None:
        """The task; None if there is nothing left to do: somebody else has done it."""
        ...

    def finish(self, tuned: TunedModel | None) -> None:
        """Declares it done."""
        ...

    def failed(self, error: Exception) -> Exception | None:
        """What is to be raised of an error; None if the others go on in spite of it."""
        ...


Say = Callable[[str], None]


def carry_out(
    what: str, works: Sequence[Work], executor: Executor, console: Console, say: Say
) -> None:
    """Does all of it. After a failure nothing more is begun; what is under way is finished, or stopped.

    Raises the first failure. Ctrl-C ends it at once.
    """
    with _shown(what, len(works), executor, console) as (begin, tell):
        try:
            _Rounds(executor, say, begin, tell, _Line(works)).go()
        finally:
            if goes_on := executor.stop():
                say(goes_on)


@contextmanager
def _shown(
    what: str, n: int, executor: Executor, console: Console
) -> Iterator[tuple[Callable[[str], Report], Callable[[int], None]]]:
    """Here, works are few at a time and each is shown; elsewhere there may be thousands."""
    if executor.is_here:
        with progresses(console) as begin:
            yield begin, lambda _: None
    else:
        with overview(console, what, n) as both:
            yield both


class _Line:
    """Works in their order: those that may begin, and those that wait for another one."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.ready = deque(work for work in works if work.after is None)
        self._after: defaultdict[int, list[Work]] = defaultdict(list)
        for work in works:
            if work.after is not None:
                self._after[id(work.after)].append(work)
        self._alike: dict[str, list[Work]] = {}

    def may_begin(self, work: Work, task: Task) -> bool:
        """Whether no task of the same identity is under way; else the work waits for it."""
        if task.identity is None:
            return True
        if task.identity in self._alike:
            self._alike[task.identity].append(work)
            return False
        self._alike[task.identity] = []
        return True

    def ended(self, task: Task) -> None:
        """Lets those begin that waited for the task to end, well or not."""
        if task.identity is not None:
            self.ready.extendleft(self._alike.pop(task.identity, ()))

    def finished(self, work: Work) -> None:
        """Lets those begin that follow."""
        self.ready.extendleft(self._after.pop(id(work), ()))


class _Rounds:
    """Gives the executor what may begin, and takes back what is done, until nothing is left."""

    def __init__(
        self,
        executor: Executor,
        say: Say,
        begin: Callable[[str], Report],
        tell: Callable[[int], None],
        line: _Line,
    ) -> None:
        self._executor, self._say, self._line = executor, say, line
        self._begin, self._tell = begin, tell
        self._n_finished = 0
        self._running: dict[Future[Any], tuple[Work, Task, Report]] = {}
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._deaths: defaultdict[int, int] = defaultdict(int)
        self._failure: Exception | None = None

    def go(self) -> None:
        """Raises the first failure."""
        while self._give() or self._running:
            if self._running:
                done = self._done.get()
                self._take(done, *self._running.pop(done))
        if self._failure is not None:
            raise self._failure

    def _give(self) -> bool:
        """Begins what may begin; says whether more is left that could."""
        while (
            self._line.ready
            and len(self._running) < self._executor.most_at_once
            and self._failure is None
        ):
            work = self._line.ready.popleft()
            try:
                self._start(work)
            except Exception as error:
                self._failed(work, error)
        return bool(self._line.ready) and self._failure is None

    def _start(self, work: Work) -> None:
        begun: list[Report] = []  # not before it is known that there is something to do

        def report(done: int, total: int, details: str) -> None:
            begun[0](done, total, details)

        task = work.prepare(report)
        if task is None:
            self._finished(work)
        elif self._line.may_begin(work, task):
            begun.append(self._begin(work.title))
            future = self._executor.submit(task)
            self._running[future] = work, task, report
            future.add_done_callback(self._done.put)

    def _take(self, done: Future[Any], work: Work, task: Task, report: Report) -> None:
        self._line.ended(task)
        if not self._executor.is_here:
            report(1, 1, "")
        try:
            tuned = self._executor.result(task, done)
            work.finish(tuned)
        except Died as death:
            self._died(work, death)
        except Exception as error:
            self._failed(work, error)
        else:
            self._finished(work)

    def _finished(self, work: Work) -> None:
        self._line.finished(work)
        self._n_finished += 1
        self._tell(self._n_finished)

    def _died(self, work: Work, death: Died) -> None:
        self._deaths[id(work)] += 1
        n, attempts = self._deaths[id(work)], self._executor.attempts
        if n >= attempts:
            self._failed(work, ExecutorError(f"{work.title}: died {n} times, at last: {death}"))
            return
        self._say(f"{work.title}: attempt {n} of {attempts} died: {death}; once more")
        self._line.ready.append(work)

    def _failed(self, work: Work, error: Exception) -> None:
        raised = work.failed(error)
        if raised is not None and self._failure is None:
            self._failure = raised
            if self._executor.is_here:
                self._executor.stop()
