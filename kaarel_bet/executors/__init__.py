"""Where the tasks of a run are done: this machine, a Ray cluster or Slurm, imported when it is chosen."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import SettingsError
from backends.schema import Strict, did_you_mean
from kaarel_bet.executors.settings import RaySettings, SlurmSettings

if TYPE_CHECKING:
    from kaarel_bet.executors.interface import Executor

LOCAL = "local"
SETTINGS: dict[str, type[Strict]] = {"ray": RaySettings, "slurm": SlurmSettings}
"""Executor on other machines -> the type of its settings."""

_PACKAGES = {"ray": "ray", "slurm": "submitit"}


def check(name: str) -> None:
    """Raises SettingsError: there is no such executor, or its package is not installed."""
    if name not in (known := (LOCAL, *SETTINGS)):
        raise SettingsError(f"executor: no '{name}'; {did_you_mean(name, known)}")
    if name != LOCAL and importlib.util.find_spec(_PACKAGES[name]) is None:
        raise SettingsError(
            f"executor {name}: {_PACKAGES[name]} is not installed; pip install 'kaarel-bet[{name}]'"
        )


def open_executor(settings: Strict, folder: Path) -> "Executor":
    """The executor with these settings; `folder` is for what it has to keep.

    Raises:
        SettingsError, ExecutorError: it can't be had.
    """
    if isinstance(settings, RaySettings):
        from kaarel_bet.executors.ray_cluster import RayExecutor

        return RayExecutor(settings)
    from kaarel_bet.executors.slurm import SlurmExecutor

    assert isinstance(settings, SlurmSettings)
    return SlurmExecutor(settings, folder)
