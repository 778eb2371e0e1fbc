"""One command at work: its settings, its run, and the backend, opened only if it is needed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

import backends
from backends.errors import RunDirectoryError, SettingsError
from backends.interface import Backend, Estimate
from kaarel_bet import experiments
from kaarel_bet.experiments.interface import Experiment
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.settings import (
    Settings,
    differences,
    load_settings,
    override,
    read_config,
)

DEFAULT_CONFIG = Path("config.yaml")


@dataclass
class Session:
    """What the steps share."""

    settings: Settings
    run: RunDirectory
    console: Console
    assume_yes: bool

    @cached_property
    def backend(self) -> Backend:
        """The backend, opened on first use: opening it takes seconds."""
        return backends.open_backend(self.settings.general.backend, self.settings.backend)

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment."""
        general = self.settings.general
        return experiments.open_experiment(
            general.experiment, self.settings.experiment, general.seed
        )

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def agree_to(self, what: str, estimates: Sequence[Estimate]) -> None:
        """Shows what the work takes in all, and asks first if it costs money.

        Raises:
            SettingsError: it was declined, or there is nobody to ask.
        """
        tokens = sum(estimate.tokens for estimate in estimates)
        requests = sum(estimate.requests for estimate in estimates)
        text = f"{what}: {tokens:,} tokens" + (f", {requests:,} requests" if requests else "")
        text += _price(estimates)
        described = ", ".join(f"{key} {value}" for key, value in self.backend.describe().items())
        self.say(f"{text} ({described})")
        if not self.backend.capabilities.costs_money or self.assume_yes:
            return
        if not sys.stdin.isatty():
            raise SettingsError("this costs money and there is no terminal to ask at; pass --yes")
        if self.console.input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise SettingsError("declined; nothing was spent")


def _price(estimates: Sequence[Estimate]) -> str:
    """What it costs in all, if every price is known."""
    known = [estimate.usd for estimate in estimates if estimate.usd is not None]
    if not known or len(known) < len(estimates):
        return ""
    least, most = (f"${sum(side):.2f}" for side in zip(*known, strict=True))
    return f", about {least}" if least == most else f", {least} to {most}"


def open_session(
    *,
    config: Path | None,
    experiment: str | None,
    backend: str | None,
    run_dir: Path | None,
    assignments: Sequence[str],
    assume_yes: bool,
    console: Console,
) -> Session:
    """Settles which settings hold and which run is meant; writes nothing.

    Raises:
        SettingsError: settings that do not exist or do not fit.
        RunDirectoryError: the run directory named was made with other settings, or is none.
    """
    flags = [f"experiment={experiment}"] if experiment else []
    flags += [f"backend={backend}"] if backend else []
    chosen = [*flags, *assignments]
    run = RunDirectory(run_dir) if run_dir else None
    if run and run.exists:
        settings = _settings_of_run(run, config, chosen)
    else:
        settings = settings_of_files(config, chosen)
    if run is None:
        results_dir = Path(settings.general.results_dir)
        run = RunDirectory.latest(results_dir, settings.frozen())
        run = run or RunDirectory.new(results_dir, settings.general.experiment)
    return Session(settings, run, console, assume_yes)


def settings_of_files(config: Path | None, chosen: list[str]) -> Settings:
    """The settings of the file (by default config.yaml, if there) with these assignments put in.

    Raises:
        SettingsError: settings that do not exist or do not fit.
    """
    path = config or DEFAULT_CONFIG
    raw = read_config(path) if config or path.exists() else {}
    load_settings(raw, where=str(path))  # so that a mistake in the file is blamed on the file
    return (
        load_settings(override(raw, chosen), where="command line")
        if chosen
        else load_settings(raw, where=str(path))
    )


def _settings_of_run(run: RunDirectory, config: Path | None, chosen: list[str]) -> Settings:
    """The run's own settings; those given on the command line have to agree with them."""
    frozen = run.frozen_settings()
    if not run.has_data and not _is_frozen(frozen):
        raise RunDirectoryError(
            f"{run.path}: not a run directory (its config.yaml is not the frozen one of a run)"
        )
    where = str(run.path / "config.yaml")
    settings = load_settings(frozen, where=where)
    given = settings_of_files(config, []).frozen() if config else frozen
    given = load_settings(override(given, chosen), where="command line").frozen()
    different = differences(given, settings.frozen())
    if different:
        raise RunDirectoryError(
            f"{run.path}: made with other settings ({', '.join(different[:3])}); "
            "leave out --run-dir for a new run"
        )
    return settings


def _is_frozen(raw: dict[str, Any]) -> bool:
    """Whether these settings are as a run writes them: complete, and without other sections.

    Of a run that was killed before it had its manifest, they are all there is to tell it from a
    directory with somebody's own config.yaml.
    """
    try:
        return load_settings(raw, where="").frozen() == raw
    except SettingsError:
        return False
