"""The training process, and the server as a process that is killed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from openai import OpenAI

from backends.interface import Progress
from backends.local.settings import LocalSettings, TrainingSettings
from backends.server.auth import KEY_VARIABLE
from backends.server.training import TrainingFailed, TrainingOrder
from backends.server.training_process import train_in_own_process
from tests.server import training_file, until

_REPOSITORY = Path(__file__).parents[3]


def order(local: LocalSettings, examples: int = 10) -> TrainingOrder:
    directory = Path("job").absolute()
    directory.mkdir(exist_ok=True)
    (directory / "training.jsonl").write_bytes(training_file(examples))
    return TrainingOrder(
        job_id="ftjob-1",
        settings=local,
        training_file=directory / "training.jsonl",
        validation_file=None,
        seed=1,
        starts_from=None,
        output=directory / "adapter",
        lock=directory / "lock",
    )


def endless(local: LocalSettings) -> LocalSettings:
    training = TrainingSettings(epochs=100_000, batch_size=2, checkpoint_seconds=0.0)
    return local.model_copy(update={"training": training})


def test_it_tells_its_progress_and_what_it_made(
    small_training: LocalSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    told: list[Progress] = []
    tuned = train_in_own_process(order(small_training), told.append, threading.Event())
    assert [progress.done for progress in told] == [0, 1, 2]
    assert tuned.training_curve[-1].train_loss == told[-1].loss
    assert (Path(tuned.model) / "adapter_model.safetensors").exists()


def test_a_reason_that_a_user_can_act_on_arrives(small_training: LocalSettings) -> None:
    diverging = TrainingSettings(epochs=30, learning_rate=1e30)
    local = small_training.model_copy(update={"training": diverging})
    with pytest.raises(TrainingFailed, match="training diverged at step"):
        train_in_own_process(order(local), lambda _: None, threading.Event())


def test_a_killed_process_is_a_reason_as_well(small_training: LocalSettings) -> None:
    def kill(progress: Progress) -> None:
        if progress.done == 1:
            (child,) = psutil.Process().children()
            child.kill()

    with pytest.raises(TrainingFailed, match="killed, most likely for lack of memory"):
        train_in_own_process(order(endless(small_training)), kill, threading.Event())


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
