"""The training process: what it tells, how it ends, and that it ends with whoever gave the order."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch

from backends.data import TunedModel
from backends.errors import TrainingError
from backends.interface import FineTuneJob, Progress
from backends.local.settings import LocalSettings, TrainingSettings
from backends.local.training_process import (
    Report,
    Stopped,
    TrainingOrder,
    train_here,
    train_in_own_process,
)
from tests.server import training_file, until


def order(local: LocalSettings, examples: int = 10, threads: int | None = None) -> TrainingOrder:
    directory = Path("job").absolute()
    directory.mkdir(exist_ok=True)
    (directory / "training.jsonl").write_bytes(training_file(examples))
    job = FineTuneJob(
        run_id="run",
        name="arm",
        training_file=directory / "training.jsonl",
        validation_file=None,
        loss_on="completion",
        seed=1,
        starts_from=None,
        output=directory / "adapter",
    )
    return TrainingOrder(settings=local, job=job, lock=directory / "lock", threads=threads)


def train(
    ordered: TrainingOrder, report: Report, stop: threading.Event | None = None
) -> TunedModel:
    return train_in_own_process(ordered, report, stop or threading.Event(), os.environ)


def endless(local: LocalSettings) -> LocalSettings:
    training = TrainingSettings(epochs=100_000, batch_size=2, checkpoint_seconds=0.0)
    return local.model_copy(update={"training": training})


def test_it_tells_its_progress_and_what_it_made(small_training: LocalSettings) -> None:
    told: list[Progress] = []
    tuned = train(order(small_training), told.append)
    assert [progress.done for progress in told] == [0, 1, 2]
    assert tuned.training_curve[-1].train_loss == told[-1].loss
    assert (Path(tuned.model) / "adapter_model.safetensors").exists()


def test_it_gives_the_very_weights_that_as_many_threads_give_here(
    small_training: LocalSettings,
) -> None:
    elsewhere = train(order(small_training, threads=1), lambda _: None)
    weights = Path(elsewhere.model) / "adapter_model.safetensors"
    theirs = weights.read_bytes()
    weights.parent.rename("theirs")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = train_here(order(small_training), lambda _: None, threading.Event())
    finally:
        torch.set_num_threads(before)
    assert weights.read_bytes() == theirs
    assert here.training_curve == elsewhere.training_curve
    assert "1 threads" in elsewhere.hyperparameters["device"]


def test_a_reason_that_a_user_can_act_on_arrives(small_training: LocalSettings) -> None:
    diverging = TrainingSettings(epochs=30, learning_rate=1e30)
    local = small_training.model_copy(update={"training": diverging})
    with pytest.raises(TrainingError, match="training diverged at step"):
        train(order(local), lambda _: None)


def trainings() -> list[psutil.Process]:
    """Those that this process has started."""
    children = psutil.Process().children()
    return [child for child in children if "backends.local.training_process" in child.cmdline()]


def test_a_killed_process_is_a_reason_as_well(small_training: LocalSettings) -> None:
    def kill(progress: Progress) -> None:
        if progress.done == 1:
            (child,) = trainings()
            child.kill()

    with pytest.raises(TrainingError, match="killed, most likely for lack of memory"):
        train(order(endless(small_training)), kill)


def test_a_process_that_can_not_begin_is_a_reason_as_well(small_training: LocalSettings) -> None:
    ordered = order(small_training)
    nowhere = ordered.model_copy(update={"lock": ordered.job.training_file / "lock"})
    with pytest.raises(TrainingError, match=r"training\.jsonl: File exists$"):
        train(nowhere, lambda _: None)


def test_it_stops_when_it_is_asked_to_and_when_nobody_listens(
    small_training: LocalSettings,
) -> None:
    stop = threading.Event()
    with pytest.raises(Stopped):
        train(order(endless(small_training)), lambda _: stop.set(), stop)
    assert trainings() == []

    def deaf(_: Progress) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        train(order(endless(small_training)), deaf)
    assert trainings() == []


def test_it_dies_with_whoever_gave_the_order(small_training: LocalSettings) -> None:
    ordered = order(endless(small_training))
    script = (
        "import sys, os, threading\n"
        "from backends.local.training_process import TrainingOrder, train_in_own_process\n"
        "ordered = TrainingOrder.model_validate_json(sys.stdin.read())\n"
        "train_in_own_process(ordered, lambda _: None, threading.Event(), os.environ)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, env=environment
    )
    assert parent.stdin is not None
    parent.stdin.write(ordered.model_dump_json().encode())
    parent.stdin.close()
    until(Path("job/.adapter.checkpoint").exists)
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=5)
