"""The interface between steps and whatever does their tasks: this machine, a Ray cluster or Slurm."""

from concurrent.futures import Future
from typing import Any, Protocol

from backends.data import TunedModel
from kaarel_bet.executors.tasks import Task


class Died(Exception):  # noqa: N818 - what happened to a task
    """A task's process or machine is gone, or it failed of what another attempt may not meet."""


class Executor(Protocol):
    """Does tasks, several at once."""

    most_at_once: int
    """Tasks that may be given to it and not be done yet."""
    attempts: int
    """How often a task is tried that dies."""
    is_here: bool
    """Whether tasks are done by this machine, each as soon as it is given."""

    def submit(self, task: Task) -> Future[Any]:
        """Gives it a task whose inputs are there. What is done comes of `result`."""
        ...

    def result(self, task: Task, done: Future[Any]) -> TunedModel | None:
        """What a finished task gave, in place: the model of a training, None of questions.

        Raises:
            Died: the task may be given again.
            KaarelBetError: as the backend; another attempt would meet it again.
        """
        ...

    def stop(self) -> str | None:
        """Gives it no more, and ends what would lose nothing by it.

        Returns a line on what goes on, and how to stop it, if anything does.
        """
        ...
