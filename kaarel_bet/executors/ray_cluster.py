"""Tasks of a Ray cluster, or of a Ray that is started on this machine for the time of the command."""

import importlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

from typing_extensions import override

from backends.data import TunedModel
from backends.errors import ExecutorError
from backends.interface import Progress
from kaarel_bet.executors.interface import Died, Executor
from kaarel_bet.executors.settings import RaySettings
from kaarel_bet.executors.tasks import Outcome, Parcel, Task, now_and_then, pack, perform, unpack

_SECONDS_BETWEEN_REPORTS = 1.0
_PATIENCE_SECONDS = 10.0


class RayExecutor(Executor):
    """A task is a Ray task: Ray says where it runs, brings its input and takes its outcome back."""

    is_here = False

    def __init__(self, settings: RaySettings) -> None:
        """Raises ExecutorError: there is no cluster at the address, or none can be started."""
        self._ray = _connected(settings)
        self.most_at_once = settings.most_at_once
        self.attempts = settings.attempts
        self._threads = max(1, int(settings.cpus))
        # Ray's own retries would show no reason, and count from anew with every start.
        needs = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "max_retries": 0}
        self._perform = self._ray.remote(**needs)(_perform)
        self._reports = _Reports(self._ray)
        self._unfinished = set[Future[Any]]()

    @override
    def submit(self, task: Task) -> Future[Any]:
        parcel = pack(task, self._threads)
        number = self._reports.expect(task)
        future = self._perform.remote(parcel, self._reports.queue, number).future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    @override
    def result(self, task: Task, done: Future[Any]) -> TunedModel | None:
        try:
            outcome = done.result()
        except self._ray.exceptions.RayError as error:
            raise Died(_reason(error)) from error
        return unpack(task, outcome)

    @override
    def stop(self) -> str | None:
        if not self._unfinished:
            return None
        self._reports.stop()
        n = len(self._unfinished)
        self._ray.shutdown()
        return f"{n} tasks of the Ray cluster end with this command; what was finished is kept"


def _connected(settings: RaySettings) -> Any:  # noqa: ANN401 - not everybody has Ray's types
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # when this command has ended, say
    chosen: dict[str, Any] = {"address": settings.address}
    if settings.address is not None:
        _check_reachable(settings.address)
    else:
        chosen = {"address": "local", "include_dashboard": False}
        chosen["_node_ip_address"] = settings.host
        if settings.host == "127.0.0.1":
            # By this alone: Ray takes a loopback address for a mistake where nodes could join, puts the
            # network's in its place, and listens on all interfaces for any but 127.0.0.1.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        return ray
    # Ray puts its own in the place of who says how to go on.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**chosen, log_to_driver=False, logging_level="error")
    except Exception as error:  # of many kinds, some of them bare
        where = f"ray.address: {settings.address}" if settings.address else "ray.host"
        raise ExecutorError(f"{where}: no Ray there ({_first_line(error)})") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    # Of every node that goes Ray writes a page to standard output; ours is the line with the attempt.
    worker: Any = importlib.import_module("ray._private.worker")
    worker.print_to_stdstream = lambda *_, **__: None
    return ray


def _check_reachable(address: str) -> None:
    """Raises ExecutorError at once, where Ray would go on trying for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():  # "auto", say
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_SECONDS).close()
    except OSError as error:
        said = error.strerror or error
        raise ExecutorError(f"ray.address: {address}: no Ray there ({said})") from error


def _perform(parcel: Parcel, reports: Any, number: int) -> Outcome:  # noqa: ANN401
    """What a worker of the cluster does."""

    def tell(now: Progress) -> None:
        reports.actor.put_nowait.remote((number, now))  # whether or not it arrives

    with tempfile.TemporaryDirectory(prefix="kaarel-bet-") as directory:
        return perform(parcel, Path(directory), now_and_then(tell, _SECONDS_BETWEEN_REPORTS))


class _Reports:
    """Brings what workers report to the tasks' listeners, by a queue that Ray keeps beside this process."""

    def __init__(self, ray: Any) -> None:  # noqa: ANN401
        queue = importlib.import_module("ray.util.queue")
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        here = strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self.queue = queue.Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._error, self._is_connected = ray.exceptions.RayError, ray.is_initialized
        self._numbers = count()
        self._listeners: dict[int, Callable[[Progress], None]] = {}
        self._stop = threading.Event()
        threading.Thread(target=self._bring, daemon=True).start()

    def expect(self, task: Task) -> int:
        """The number that a task's reports are to have."""
        number = next(self._numbers)
        self._listeners[number] = task.report
        return number

    def stop(self) -> None:
        """Nothing is brought from now on."""
        self._stop.set()

    def _bring(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_REPORTS) and self._is_connected():
            try:
                waiting = self.queue.get_nowait_batch(self.queue.qsize())
            except self._error:
                return  # its node is gone: work goes on unseen
            for number, progress in waiting:
                self._listeners[number](progress)


def _reason(error: Exception) -> str:
    """In a line; of an error inside the task its own words."""
    error = getattr(error, "cause", None) or error
    said = _first_line(error)
    sentence, stop, _ = said.partition(". ")
    return f"{type(error).__name__}: {sentence}{stop.strip()}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
