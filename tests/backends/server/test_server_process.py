"""The server as a process that is killed, and what its training process is told."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from openai import OpenAI

from backends.local import training_process
from backends.server.auth import KEY_VARIABLE
from backends.server.training import train_in_own_process
from tests.server import training_file, until

_REPOSITORY = Path(__file__).parents[3]


def test_the_training_process_is_not_told_the_servers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    given: list[Mapping[str, str]] = []

    def train(order: object, report: object, stop: object, environment: Mapping[str, str]) -> None:
        given.append(environment)

    monkeypatch.setattr(training_process, "train_in_own_process", train)
    train_in_own_process(None, lambda _: None, threading.Event())  # pyright: ignore[reportArgumentType]
    assert given[0].keys() == os.environ.keys() - {KEY_VARIABLE}


class ServerProcess:
    """`kaarel-bet serve` as users start it."""

    def __init__(self, model: Path, *words: str) -> None:
        self.log = Path("serve.log")
        environment = os.environ | {"PYTHONPATH": str(_REPOSITORY)}
        flags = ["--port", "0", "--model", str(model), "--data-dir", "data"]
        flags += ["--set", "local.device=cpu"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kaarel_bet", "serve", *flags, *words],
                stderr=log,
                env=environment,
            )
        until(lambda: self.url or self.process.poll() is not None)
        assert self.url, self.log.read_text()
        self.client = OpenAI(base_url=self.url, api_key="none", _strict_response_validation=True)

    @property
    def url(self) -> str:
        lines = self.log.read_text().splitlines()
        return next((line.split()[-1] for line in lines if line.startswith("serving ")), "")


@pytest.mark.slow
def test_a_killed_server_loses_nothing_and_goes_on(tiny_model: Path) -> None:
    words = ["--set", "local.training.checkpoint_seconds=0.0"]
    server = ServerProcess(tiny_model, *words)
    jobs = server.client.fine_tuning.jobs
    file = server.client.files.create(file=("t.jsonl", training_file(50)), purpose="fine-tune")
    long = {"n_epochs": 20, "batch_size": 1}
    running = jobs.create(model="llama", training_file=file.id, hyperparameters=long)  # pyright: ignore[reportArgumentType]
    queued = jobs.create(model="llama", training_file=file.id, hyperparameters={"n_epochs": 1})

    def steps() -> list[str]:
        return [e.message for e in jobs.list_events(running.id) if e.message.startswith("Step ")]

    until(lambda: len(steps()) >= 20)
    (training,) = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.wait()
    until(lambda: not training.is_running() or training.status() == psutil.STATUS_ZOMBIE)

    server = ServerProcess(tiny_model, *words)
    jobs = server.client.fine_tuning.jobs
    assert server.client.files.content(file.id).content == training_file(50)
    before = steps()
    assert len(before) >= 20
    until(lambda: len(steps()) > len(before))
    jobs.cancel(running.id)
    until(lambda: jobs.retrieve(queued.id).status == "succeeded")
    told = steps()
    assert len(told) == len(set(told))  # no step is told twice
    assert "Step 1/1000: " in told[-1]
    assert sum("job started" in event.message for event in jobs.list_events(running.id)) == 1
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()
