"""Training in a process of its own, which a crash or a lack of memory takes down alone.

`python -m backends.local.training_process` reads its order from standard input, a line of JSON, and tells
its progress on standard output, one message a line. It dies with whoever gave the order: standard input is
a pipe whose other end that process holds, and the order's lock keeps a training of the same model that
comes after waiting until it is gone.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from backends.data import TunedModel
from backends.errors import KaarelBetError, TrainingError
from backends.interface import FineTuneJob, Progress, Stopped, stoppable
from backends.local.settings import LocalSettings
from backends.schema import Number, Positive, Strict

Report = Callable[[Progress], None]


class TrainingOrder(Strict):
    """Everything a training needs to know; the same order again takes up a killed training.

    `threads` is how many the CPU works with, None for as many as torch takes.
    """

    settings: LocalSettings
    job: FineTuneJob
    lock: Path
    threads: Positive | None = None


class ProgressMessage(Strict):
    """How far it has come."""

    kind: Literal["progress"] = "progress"
    done: int
    total: int
    tokens: int
    loss: Number | None


class DoneMessage(Strict):
    """It is done; the last message."""

    kind: Literal["done"] = "done"
    tuned_model: TunedModel


class FailedMessage(Strict):
    """It failed; the last message."""

    kind: Literal["failed"] = "failed"
    reason: str


Message = ProgressMessage | DoneMessage | FailedMessage
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def train_here(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
    """Trains in this process, one at a time of those with the same lock. Raises Stopped."""
    # Heavy, and who gives the orders need not train.
    from backends.local.backend import LocalBackend

    with FileLock(order.lock):
        return LocalBackend(order.settings).fine_tune(order.job, stoppable(report, stop))


def train_in_own_process(
    order: TrainingOrder, report: Report, stop: threading.Event, environment: Mapping[str, str]
) -> TunedModel:
    """Trains in a child process with these variables; the event stops it within a moment.

    Raises:
        Stopped: the event was set.
        TrainingError: it ended without a model; says why.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "backends.local.training_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # So that the child finds the same packages.
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        watcher = threading.Thread(target=_kill_when_stopped, args=(process, stop), daemon=True)
        watcher.start()
        try:
            with process.stdout:
                _give(order, process.stdin)
                last = _last_message(process.stdout, report)
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
            process.stdin.close()
            watcher.join()
        if isinstance(last, DoneMessage):
            return last.tuned_model
        if stop.is_set():
            raise Stopped
        raise TrainingError(last.reason if last else _death(code, log))


def _give(order: TrainingOrder, channel: IO[bytes]) -> None:
    try:
        channel.write(order.model_dump_json().encode() + b"\n")
        channel.flush()
    except BrokenPipeError:
        pass  # it died at once; its end says why


def _kill_when_stopped(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    while process.poll() is None:
        if stop.wait(0.2):
            process.kill()  # it goes on from its last checkpoint, if ever


def _last_message(lines: IO[bytes], report: Report) -> DoneMessage | FailedMessage | None:
    last: DoneMessage | FailedMessage | None = None
    for line in lines:
        try:
            message = _MESSAGE.validate_json(line)
        except ValidationError:
            continue  # cut short by the process's death
        if isinstance(message, ProgressMessage):
            report(Progress(message.done, message.total, message.tokens, message.loss))
        else:
            last = message
    return last


def _death(code: int, log: IO[bytes]) -> str:
    if code == -signal.SIGKILL:
        return "The training process was killed, most likely for lack of memory."
    if code < 0:
        return f"The training process died of signal {-code} ({signal.strsignal(-code)})."
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    return f"The training process ended with code {code}: {told[-1][:500] if told else 'no output'}"


def main() -> int:
    """The child: trains as ordered and tells of it on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who gave the order
    tell = _teller()
    order = TrainingOrder.model_validate_json(_first_line())
    threading.Thread(target=_die_with_the_other_end, daemon=True).start()
    try:
        _set_threads(order.threads)
        tuned = train_here(order, lambda now: tell(_message(now)), threading.Event())
    except KaarelBetError as error:
        tell(FailedMessage(reason=str(error)))
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        tell(FailedMessage(reason=f"{place}{error.strerror or error}"))
        return 1
    tell(DoneMessage(tuned_model=tuned))
    return 0


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _message(now: Progress) -> ProgressMessage:
    return ProgressMessage(done=now.done, total=now.total, tokens=now.tokens, loss=now.loss)


def _teller() -> Callable[[Message], None]:
    """Writes messages to what is standard output now; whatever libraries print goes to the log."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: Message) -> None:
        channel.write(message.model_dump_json() + "\n")
        channel.flush()

    return tell


# Unbuffered reads both: a buffer's lock, held while waiting, would abort an ordinary exit.


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 1 << 16)
        if not read:
            os._exit(1)
        line += read
    return line


def _die_with_the_other_end() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    os._exit(main())  # without Python's look through torch's million objects, which takes seconds
