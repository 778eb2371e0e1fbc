"""The command line in processes of its own, which fork from one that has imported what takes seconds.

`start("run", ...)` stands for `python -m kaarel_bet run ...` in the working directory and environment of
whoever calls. Signals, exit codes and both outputs are those of the command.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.imported"])


class Running:
    """A command under way, with what is used of `subprocess.Popen`."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.args = ("kaarel-bet", *words)
        self._directory = tempfile.TemporaryDirectory(prefix="kaarel-bet-test-")
        self._out, self._err = (Path(self._directory.name, name) for name in ("out", "err"))
        given = (words, str(Path.cwd()), dict(os.environ), (str(self._out), str(self._err)))
        self._process = _PROCESSES.Process(target=_command, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; of a killed one, minus the signal."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Both outputs, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        # One that was killed at once has written none.
        paths = (self._out, self._err)
        out, err = (path.read_text(encoding="utf-8") if path.exists() else "" for path in paths)
        return out, err

    def wait_for(self, path: Path, seconds: float = 240) -> None:
        """Until a file is there, which it is to write before it ends."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert self.returncode is None, self.communicate()[1]
            assert time.monotonic() < deadline, f"{path} is not there"
            time.sleep(0.01)


def start(*words: str) -> Running:
    """Starts `kaarel-bet WORDS`, at the head of a process group of its own."""
    return Running(words)


def run(*words: str, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    """Runs it to its end."""
    running = start(*words)
    out, err = running.communicate(timeout)
    assert running.returncode is not None
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


def _command(
    words: tuple[str, ...], directory: str, environment: dict[str, str], outputs: tuple[str, str]
) -> None:
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Of the text layers, too: the server's go elsewhere.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["kaarel-bet", *words]

    from kaarel_bet.__main__ import main

    code = main()
    sys.stdout.flush()
    sys.exit(code)
