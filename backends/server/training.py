"""Training one job, wherever it is done: the order, what is told about it, and how it can end."""

import threading
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from backends.data import TunedModel
from backends.interface import FineTuneJob, LossOn, Progress
from backends.local.settings import LocalSettings
from backends.schema import Strict


class TrainingOrder(Strict):
    """Everything a training needs to know; the same order again takes up a killed training."""

    job_id: str
    settings: LocalSettings
    training_file: Path
    validation_file: Path | None
    loss_on: LossOn = "completion"
    seed: int
    starts_from: Path | None
    output: Path
    lock: Path

    def fine_tune_job(self) -> FineTuneJob:
        """The order as the local backend takes it."""
        return FineTuneJob(
            run_id=self.job_id,
            name=self.job_id,
            training_file=self.training_file,
            validation_file=self.validation_file,
            loss_on=self.loss_on,
            seed=self.seed,
            starts_from=None if self.starts_from is None else str(self.starts_from),
            output=self.output,
        )


Report = Callable[[Progress], None]
Train = Callable[[TrainingOrder, Report, threading.Event], TunedModel]
"""Trains until done or until the event is set; raises Stopped, TrainingFailed or KaarelBetError."""


class Stopped(Exception):  # noqa: N818 - not a failure
    """The training was asked to stop."""


class TrainingFailed(Exception):  # noqa: N818 - as the wire says it
    """The training ended without a model; the message says why."""


def train_here(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
    """Trains in this process, one at a time on this data directory."""
    # Heavy, and the server itself never trains.
    from backends.local.backend import LocalBackend

    def checked(progress: Progress) -> None:
        if stop.is_set():
            raise Stopped
        report(progress)

    with FileLock(order.lock):
        return LocalBackend(order.settings).fine_tune(order.fine_tune_job(), checked)
