"""One command at work: its settings, its run, and the backend, opened only if it is needed."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

from rich.console import Console

import backends
from backends.errors import RunDirectoryError, SettingsError
from backends.interface import Backend, Estimate
from backends.schema import Strict
from kaarel_bet import executors, experiments
from kaarel_bet.bet.claims import check_claims
from kaarel_bet.bet.schema import Bet, settings_of
from kaarel_bet.bet.source import Assignment, LoadedBet, load_bet
from kaarel_bet.documents import Document
from kaarel_bet.executors.interface import Executor
from kaarel_bet.executors.local import LocalExecutor
from kaarel_bet.experiments.interface import Experiment
from kaarel_bet.manifest import MODEL, ArmEntry
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.settings import (
    Settings,
    differences,
    executor_settings,
    load_frozen,
    load_settings,
)
from kaarel_bet.yaml_files import read

DEFAULT_CONFIG = Path("config.yaml")


@dataclass
class Session:
    """What the steps share."""

    settings: Settings
    run: RunDirectory
    console: Console
    assume_yes: bool
    executor_settings: Strict | None = None
    """Those of the executor on other machines, if one is chosen."""
    _backends: dict[tuple[str, str], Backend] = field(
        default_factory=dict[tuple[str, str], Backend]
    )

    @cached_property
    def backend(self) -> Backend:
        """The backend, opened on first use: opening it takes seconds."""
        return self._opened(self.settings.general.backend, self.settings.backend)

    @cached_property
    def day(self) -> date:
        """The run's date, which chat templates may show: that of its first step."""
        recorded = self.run.manifest().date if self.run.has_data else None
        return date.fromisoformat(recorded) if recorded else date.today()

    def backend_of(self, arm: ArmEntry) -> Backend:
        """An arm's: that of the run with the arm's own settings over the others; or a further model's own.

        Raises:
            SettingsError: one of them is no setting of a backend.
        """
        if arm.role != MODEL:
            chosen = self.settings.backend_with(arm.settings, arm.arm)
            if chosen == self.settings.backend:
                return self.backend
            return self._opened(self.settings.general.backend, chosen)
        bet = self.settings.bet
        assert isinstance(bet, Bet)
        model = bet.models[arm.arm]
        try:
            return self._opened(model.backend, settings_of(model))
        except SettingsError as error:
            raise SettingsError(f"models.{arm.arm}: {error}") from error

    def _opened(self, name: str, settings: Strict) -> Backend:
        key = (name, json.dumps(settings.model_dump(mode="json"), sort_keys=True))
        if key not in self._backends:
            self._backends[key] = backends.open_backend(
                name, settings, self.day, elsewhere=self.executor_settings is not None
            )
        return self._backends[key]

    @cached_property
    def executor(self) -> Executor | None:
        """What does tasks on other machines, if one is chosen; opened on first use."""
        if self.executor_settings is None:
            return None
        folder = Path(self.settings.general.results_dir, ".executor")
        return executors.open_executor(self.executor_settings, folder)

    def executor_of(self, backend: Backend, at_once: int = 1) -> Executor:
        """What does a backend's tasks: where it can do them here alone, this machine, so many at once."""
        if backend.capabilities.elsewhere and self.executor is not None:
            return self.executor
        return LocalExecutor(at_once)

    def close_others(self, backend: Backend) -> None:
        """Gives back what all others hold: two models at a time may not fit the memory."""
        for other in self._backends.values():
            if other is not backend:
                other.close()

    @cached_property
    def experiment(self) -> Experiment:
        """What runs the bet."""
        loaded = self.settings.loaded
        return experiments.open_experiment(loaded.bet, loaded.folder, self.settings.general.seed)

    def check_bet(self) -> None:
        """Looks up every name in the bet, and reads its claims.

        Raises:
            SettingsError: a name does not exist, or an expression is none.
        """
        with self.settings.loaded.pointing():
            check_claims(self.settings.bet, self.experiment.vocabulary())

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def agree_to(self, what: str, work: Sequence[tuple[Backend, Estimate]]) -> None:
        """Tells what the work takes, and asks first if it costs money.

        Raises:
            SettingsError: it was declined, or there is nobody to ask.
        """
        self.tell(what, work)
        if self.assume_yes or not any(b.capabilities.costs_money for b, _ in work):
            return
        if not sys.stdin.isatty():
            raise SettingsError("this costs money and there is no terminal to ask at; pass --yes")
        if self.console.input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise SettingsError("declined; nothing was spent")

    def tell(self, what: str, work: Sequence[tuple[Backend, Estimate]]) -> None:
        """Shows what the work takes in all, backend by backend."""
        takes: dict[str, list[Estimate]] = {}
        for backend, estimate in work:
            described = ", ".join(f"{key} {value}" for key, value in backend.describe().items())
            takes.setdefault(described, []).append(estimate)
        words = (f"{Estimate.of_all(all_of).words} ({by})" for by, all_of in takes.items())
        self.say(f"{what}: {'; '.join(words)}")


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
    executing = executor_settings(_document(config), assignments)
    flags = [f"experiment={json.dumps(experiment)}"] if experiment else []
    flags += [f"backend={json.dumps(backend)}"] if backend else []
    run = RunDirectory(run_dir) if run_dir else None
    if run and run.exists:
        settings = _settings_of_run(run, config, experiment, backend, assignments)
    else:
        settings = settings_of_files(config, [*flags, *assignments])
    if run is None:
        results_dir = Path(settings.general.results_dir)
        run = RunDirectory.latest(results_dir, settings.frozen())
        run = run or RunDirectory.new(results_dir, settings.bet.name)
    session = Session(settings, run, console, assume_yes, executing)
    if not run.has_data:
        session.check_bet()
    return session


def settings_of_files(config: Path | None, chosen: Sequence[str]) -> Settings:
    """The settings of the file (by default config.yaml, if there) with these assignments put in.

    Raises:
        SettingsError: settings that do not exist or do not fit.
    """
    return load_settings(_document(config), chosen)


def _document(config: Path | None) -> Document:
    path = config or DEFAULT_CONFIG
    return read(path) if config or path.exists() else Document(str(path), {})


def _settings_of_run(
    run: RunDirectory,
    config: Path | None,
    experiment: str | None,
    backend: str | None,
    assignments: Sequence[str],
) -> Settings:
    """The run's own settings; those given on the command line have to agree with them."""
    frozen = Document(str(run.path / "config.yaml"), run.frozen_settings())
    if "bet" not in frozen.data and run.has_data:
        raise RunDirectoryError(f"{run.path}: of a version whose runs can't be gone on with")
    if not run.has_data and not _is_frozen(frozen):
        raise RunDirectoryError(
            f"{run.path}: not a run directory (its config.yaml is not the frozen one of a run)"
        )
    loaded = _as_now(config, experiment, assignments) if experiment else None
    settings = load_frozen(frozen, loaded.folder if loaded else Path())
    if not run.has_data:
        settings.loaded.refuse_changed_files()
    flags = [f"backend={json.dumps(backend)}"] if backend else []
    if config:
        flags += [f"experiment={json.dumps(experiment)}"] if experiment else []
        given = settings_of_files(config, [*flags, *assignments]).frozen()
    else:
        given = load_frozen(frozen, Path(), [*flags, *assignments]).frozen()
        given |= {"experiment": loaded.bet.name} | loaded.frozen() if loaded else {}
    if different := differences(given, settings.frozen()):
        of_bet = ("bet.", "choices.")
        name = settings.bet.name
        shown = [
            name + key[key.index(".") :] if key.startswith(of_bet) else key for key in different
        ]
        shown = ["experiment"] if "experiment" in different else shown[:3]
        raise RunDirectoryError(
            f"{run.path}: made with other settings ({', '.join(shown)}); "
            "leave out --run-dir for a new run"
        )
    return settings


def _as_now(config: Path | None, experiment: str, assignments: Sequence[str]) -> LoadedBet:
    """A bet that is named beside a run, as its file and the settings are today."""
    given = [Assignment.parse(text) for text in assignments]
    return load_bet(experiment, _document(config), given)


def _is_frozen(frozen: Document) -> bool:
    """Whether these settings are as a run writes them: complete, and without other sections.

    Of a run that was killed before it had its manifest, they are all there is to tell it from a
    directory with somebody's own config.yaml.
    """
    try:
        return load_frozen(frozen, Path()).frozen() == frozen.data
    except SettingsError:
        return False
