"""Processes of this machine that answer queries between them, and hold or train one model together.

torch starts them (torch.multiprocessing); each is told what to do, and tells what it has done, by a pipe.
They find each other by a file, and where they talk over the network they do so on the loopback interface.
They die with the process that started them: it holds the other end of a pipe.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, cast

import psutil
import torch
from torch import distributed
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from backends.data import Query, TunedModel
from backends.errors import KaarelBetError
from backends.interface import FineTuneJob, Progress
from backends.local.settings import LocalSettings
from backends.local.sharding import share

Asking = Literal["score", "generate", "search"]
START_METHOD = "spawn"
"""Of multiprocessing: what CUDA asks for."""


@dataclass(frozen=True)
class _Ask:
    """Answer these queries as `LocalBackend` does."""

    how: Asking
    model: str
    queries: Sequence[Query]


@dataclass(frozen=True)
class _Train:
    """Train, together with the others."""

    job: FineTuneJob


@dataclass(frozen=True)
class _Results:
    """Answers; more may follow."""

    results: Sequence[Any]


@dataclass(frozen=True)
class _Done:
    """An order is carried out; the last message about it."""

    tuned_model: TunedModel | None = None


class Ranks:
    """So many processes, each with a `LocalBackend` of its own."""

    def __init__(self, settings: LocalSettings, device: torch.device, count: int) -> None:
        pipes = [multiprocessing.Pipe() for _ in range(count)]
        self._pipes = [ours for ours, _ in pipes]
        ends, self._life = multiprocessing.Pipe(duplex=False)
        self._directory = tempfile.TemporaryDirectory()
        plan = _Plan(settings, device, count, Path(self._directory.name, "store"), Path.cwd())
        theirs = [end for _, end in pipes]
        context = start_processes(
            _run, (plan, theirs, ends), count, join=False, daemon=True, start_method=START_METHOD
        )
        assert isinstance(context, ProcessContext)
        self._context = context
        for end in (*theirs, ends):
            end.close()

    def fine_tune(self, job: FineTuneJob, report: Callable[[Progress], None]) -> TunedModel:
        """As `LocalBackend.fine_tune`. After an error the processes are gone."""
        tuned = None
        for message in self._carried_out([_Train(job)] * len(self._pipes)):
            if isinstance(message, Progress):
                report(message)
            elif isinstance(message, _Done):
                tuned = message.tuned_model or tuned
        assert tuned is not None
        return tuned

    def ask(self, how: Asking, model: str, queries: Sequence[Query]) -> Iterator[Any]:
        """As the backend's method of that name, each process a share of the queries.

        After an error, or if not all results are taken, the processes are gone.
        """
        count = len(self._pipes)
        orders = [_Ask(how, model, share(queries, n, count)) for n in range(count)]
        for message in self._carried_out(orders):
            if isinstance(message, _Results):
                yield from message.results

    def close(self) -> None:
        """Ends them, whatever they are doing."""
        self._life.close()
        for process in cast("list[multiprocessing.Process]", self._context.processes):
            process.join(timeout=5)
            process.kill()
            process.join()
        self._directory.cleanup()

    @property
    def pids(self) -> list[int]:
        """Their numbers, by which the system knows them."""
        return self._context.pids()

    @property
    def is_closed(self) -> bool:
        """Whether they are gone."""
        return self._life.closed

    def _carried_out(self, orders: Sequence[_Ask | _Train]) -> Iterator[Any]:
        """What the processes tell until each has done as it was told."""
        busy = set(self._pipes)
        try:
            for pipe, order in zip(self._pipes, orders, strict=True):
                pipe.send(order)
            while busy:
                for ready in multiprocessing.connection.wait([*busy, *self._context.sentinels]):
                    if not isinstance(ready, Connection):
                        raise KaarelBetError(self._death())
                    message = ready.recv()
                    if isinstance(message, Exception):
                        raise message
                    yield message
                    if isinstance(message, _Done):
                        busy.remove(ready)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise KaarelBetError(self._death()) from error
        finally:
            if busy:
                self.close()

    def _death(self) -> str:
        """How the first of them that is gone ended."""
        count = len(self._pipes)
        try:
            self._context.join()
        except ProcessExitedException as error:
            number = f"process {error.error_index + 1} of {count} (local.processes)"
            if error.exit_code == -signal.SIGKILL:
                return f"{number} was killed, most likely for lack of memory"
            return f"{number} ended with code {error.exit_code}"
        except ProcessRaisedException as error:
            number = f"process {error.error_index + 1} of {count} (local.processes)"
            return f"{number} failed: {str(error).strip().splitlines()[-1]}"
        return "the processes that compute (local.processes) ended"


@dataclass(frozen=True)
class _Plan:
    """What each process knows from the start."""

    settings: LocalSettings
    device: torch.device
    count: int
    store: Path
    """The file by which they find each other."""
    directory: Path
    """What relative paths are relative to."""


def _run(rank: int, plan: _Plan, pipes: Sequence[Connection], life: Connection) -> None:
    """A process: carries out orders until the one that started it ends or closes its pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who gives the orders
    threading.Thread(target=_die_with_the_other_end, args=(life,), daemon=True).start()
    os.chdir(plan.directory)
    if plan.device.type == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // plan.count))
    if plan.settings.shard == "fsdp":
        _meet(rank, plan)
    # Heavy, and it imports this module.
    from backends.local.backend import LocalBackend

    backend = LocalBackend(plan.settings, is_rank=True)
    pipe = pipes[rank]
    while True:
        order = pipe.recv()
        try:
            if isinstance(order, _Train):
                tell = pipe.send if rank == 0 else _ignore
                pipe.send(_Done(backend.fine_tune(order.job, tell)))
                continue
            for result in getattr(backend, order.how)(order.model, order.queries):
                pipe.send(_Results([result]))
            pipe.send(_Done())
        except (KaarelBetError, OSError) as error:
            pipe.send(error)


def _meet(rank: int, plan: _Plan) -> None:
    interface = _loopback()
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, interface)
    by_device = "cpu:gloo,cuda:nccl" if plan.device.type == "cuda" else "gloo"
    where = plan.store.as_uri()
    distributed.init_process_group(by_device, init_method=where, rank=rank, world_size=plan.count)


def _loopback() -> str:
    """What this machine calls its loopback interface."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(a.family == socket.AF_INET and a.address == "127.0.0.1" for a in addresses):
            return name
    return "lo"


def _die_with_the_other_end(life: Connection) -> None:
    try:
        life.recv()
    except EOFError:
        os._exit(1)


def _ignore(_: Progress) -> None:
    pass
