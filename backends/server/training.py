"""Training a job in a process that knows the server's key as little as any client does."""

import os
import threading
from collections.abc import Callable

from backends.data import TunedModel
from backends.local import training_process
from backends.local.training_process import Report, TrainingOrder
from backends.server.auth import KEY_VARIABLE

Train = Callable[[TrainingOrder, Report, threading.Event], TunedModel]
"""Trains until done or until the event is set; raises Stopped, or KaarelBetError."""


def train_in_own_process(order: TrainingOrder, report: Report, stop: threading.Event) -> TunedModel:
    """Trains in a child process. Raises Stopped, and TrainingError with the reason."""
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    return training_process.train_in_own_process(order, report, stop, environment)
