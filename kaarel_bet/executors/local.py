"""Tasks on this machine: one at a time in this thread, or side by side, a place of the machine each."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from typing_extensions import override

from backends.data import TunedModel
from backends.interface import FineTuneJob, Place
from kaarel_bet.executors.interface import Executor
from kaarel_bet.executors.tasks import Task, answers


class LocalExecutor(Executor):
    """What the backend does by itself; a killed training is taken up by the next start."""

    attempts = 1
    is_here = True

    def __init__(self, at_once: int) -> None:
        self.most_at_once = at_once
        self._stop = threading.Event()
        self._free = [Place(number, at_once, self._stop) for number in range(at_once)]
        self._threads = ThreadPoolExecutor(at_once) if at_once > 1 else None

    @override
    def submit(self, task: Task) -> Future[Any]:
        if self._threads is None:  # in this thread, which Ctrl-C interrupts
            return _done(lambda: _do(task, None))
        place = self._free.pop()
        future = self._threads.submit(_do, task, place)
        future.add_done_callback(lambda _: self._free.append(place))
        return future

    @override
    def result(self, task: Task, done: Future[Any]) -> TunedModel | None:
        return done.result()

    @override
    def stop(self) -> str | None:
        self._stop.set()
        if self._threads is not None:
            self._threads.shutdown()
        return None


def _do(task: Task, place: Place | None) -> TunedModel | None:
    if isinstance(task.work, FineTuneJob):
        return task.backend.fine_tune(task.work, task.report, place)
    for result in answers(task.backend, task.work):
        task.take([result])
    return None


def _done(work: Callable[[], TunedModel | None]) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future
