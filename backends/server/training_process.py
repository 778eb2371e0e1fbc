"""Training in a process of its own, so that a crash or a lack of memory takes down that job alone.

The server runs `python -m backends.server.training_process ORDER.json`, which tells its progress on
standard output, one message a line. It dies with the server: its standard input is a pipe whose other
end the server holds, and the lock on training keeps a server that comes after waiting until it is gone.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

from pydantic import TypeAdapter, ValidationError

from backends.data import TunedModel
from backends.errors import KaarelBetError
from backends.interface import Progress
from backends.schema import Number, Strict
from backends.server.auth import KEY_VARIABLE
from backends.server.training import (
    Report,
    Stopped,
    TrainingFailed,
    TrainingOrder,
    train_here,
)


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
    """It failed for a reason that a user can act on; the last message."""

    kind: Literal["failed"] = "failed"
    reason: str


Message = ProgressMessage | DoneMessage | FailedMessage
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def train_in_own_process(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
    """Trains in a child process. Raises Stopped, and TrainingFailed with the reason."""
    directory = order.training_file.parent
    order_file = directory / "order.json"
    order_file.write_text(order.model_dump_json(), encoding="utf-8")
    with (directory / "training.log").open("wb") as log:
        process = subprocess.Popen(
            # -P: what lies in the working directory must not hide a module.
            [sys.executable, "-P", "-m", "backends.server.training_process", str(order_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
        )
    assert process.stdin is not None
    assert process.stdout is not None
    watcher = threading.Thread(target=_kill_when_stopped, args=(process, stop), daemon=True)
    watcher.start()
    with process.stdin, process.stdout:
        last = _last_message(process.stdout, report)
    code = process.wait()
    watcher.join()
    if isinstance(last, DoneMessage):
        return last.tuned_model
    if stop.is_set():
        raise Stopped
    raise TrainingFailed(last.reason if last else _death(code, directory / "training.log"))


def _environment() -> dict[str, str]:
    """This process's, so that the child finds the same packages; it has no use for the server's key."""
    inherited = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


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


def _death(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "The training process was killed, most likely for lack of memory."
    if code < 0:
        return f"The training process died of signal {-code} ({signal.strsignal(-code)})."
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    told = [line.strip() for line in lines if line.strip()]
    return f"The training process ended with code {code}: {told[-1][:500] if told else 'no output'}"


def main(order_file: Path) -> int:
    """The child: trains as ordered and tells of it on standard output."""
    tell = _teller()
    threading.Thread(target=_die_with_the_server, daemon=True).start()
    order = TrainingOrder.model_validate_json(order_file.read_text(encoding="utf-8"))
    try:
        tuned = train_here(order, lambda now: tell(_message(now)), threading.Event())
    except KaarelBetError as error:
        tell(FailedMessage(reason=str(error)))
        return 1
    except Exception as error:
        tell(FailedMessage(reason=f"{type(error).__name__}: {error}"))
        raise  # the log keeps the traceback
    tell(DoneMessage(tuned_model=tuned))
    return 0


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


def _die_with_the_server() -> None:
    os.read(0, 1)  # unbuffered: a buffer's lock, held while waiting, would abort an ordinary exit
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
