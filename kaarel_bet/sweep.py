"""`kaarel-bet sweep`: a bet at several settings, and what its author may make of the best of them.

Every setting is a run of its own, found again by its settings, so that a killed sweep goes on. What is
best is chosen by one claim and then decided anew: on rows and trainings that did not choose it, or with
intervals widened for all that were tried.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from backends.errors import SettingsError
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.schema import Sweep
from kaarel_bet.generate_data import generate_data
from kaarel_bet.report import judged, report
from kaarel_bet.run_dir import Tried
from kaarel_bet.session import Session
from kaarel_bet.settings import SECTIONS
from kaarel_bet.test import test

Open = Callable[[Sequence[str]], Session]
"""Opens a session with further assignments."""


@dataclass(frozen=True)
class Setting:
    """One of the combinations: dotted path -> value, and the assignments that make it."""

    values: Mapping[str, Any]
    assignments: Sequence[str]

    @property
    def words(self) -> str:
        """In a line."""
        return ", ".join(f"{path} {json.dumps(value)}" for path, value in self.values.items())


def sweep(open_session: Open) -> Session:
    """Runs what is missing of a sweep, prints its table as it fills, and decides; returns that last run.

    Raises:
        SettingsError: the bet declares no sweep, or one of its settings does not fit.
    """
    session = open_session(())
    spec, name = session.settings.bet.sweep, session.settings.bet.name
    if spec is None:
        raise SettingsError(
            f"{name}: declares no sweep; docs/bets.md says how (sweep: {{settings: ...}})"
        )
    chosen_on = _held_out(spec, name, "first")
    settings = list(_settings(spec, session))
    for one in settings:  # all are checked before any is begun
        open_session((*one.assignments, *chosen_on))
    results = Path(session.settings.general.results_dir)
    with _Alone(results / f".sweep-{name}.lock", session.console):
        rows, margins = [], list[float]()
        # Here one after the other, each to its row; other machines are given all of them together.
        together = len(settings) if session.executor_settings is not None else 1
        for start in range(0, len(settings), together):
            part = settings[start : start + together]
            opened: list[Session] = []
            for place, one in enumerate(part, start=start + 1):
                # Opened anew: who waited finds the runs that another process has made.
                opened.append(open_session((*one.assignments, *chosen_on)))
                opened[-1].say(f"sweep, {place} of {len(settings)}: {one.words}")
                generate_data(opened[-1])  # before the next one is named, by the same second maybe
            test(*opened)
            for one, of in zip(part, opened, strict=True):
                judge = judged(of, of.run.answers())
                margins.append(judge.margin(spec.best_for))
                rows.append(_row(one, judge, spec.best_for, of))
                print("  ".join(rows[-1]), flush=True)
        best = max(range(len(margins)), key=margins.__getitem__)
        final = open_session(
            (*settings[best].assignments, *_decisive(spec, name, len(settings), session))
        )
        final.say(f"sweep: {settings[best].words} is best for {spec.best_for}; decided anew")
        test(final)
        with final.run.writing():
            final.run.write_tried(_tried(spec, rows, best))
        report(final)
    return final


def _settings(spec: Sweep, session: Session) -> Iterator[Setting]:
    name, bet = session.settings.bet.name, session.settings.loaded.document.data
    for values in itertools.product(*spec.settings.values()):
        named = dict(zip(spec.settings, values, strict=True))
        assignments = []
        for path, value in named.items():
            is_general = path.partition(".")[0] in SECTIONS
            for one in [path] if is_general else [f"{name}.{p}" for p in _expanded(path, bet)]:
                assignments.append(f"{one}={json.dumps(value)}")
        yield Setting(named, assignments)


def _expanded(path: str, data: Mapping[str, Any]) -> list[str]:
    """`arms.*.loss_on` as a path for every arm. Raises SettingsError if there is nothing to stand for."""
    before, star, after = path.partition(".*.")
    if not star:
        return [path]
    inside: Any = data
    for key in before.split("."):
        inside = inside.get(key) if isinstance(inside, Mapping) else None
    if not isinstance(inside, Mapping) or not inside:
        raise SettingsError(f"sweep.settings: {path}: nothing stands below {before}")
    return [f"{before}.{key}.{after}" for key in inside]


def _held_out(spec: Sweep, name: str, side: str) -> list[str]:
    if spec.confirm is None:
        return []
    keep = {"share": 1 - spec.confirm.hold_out, "side": side}
    return [f"{name}.data.{spec.confirm.of}.keep={json.dumps(keep)}"]


def _decisive(spec: Sweep, name: str, n: int, session: Session) -> list[str]:
    """What the winner is decided with: other rows and further trainings, or wider intervals."""
    replicate, tried = session.settings.bet.replicate, session.settings.bet.intervals.settings_tried
    if spec.confirm is None:
        return [f"{name}.intervals.settings_tried={n * tried}"]
    return [
        *_held_out(spec, name, "others"),
        f"{name}.replicate.first={replicate.first + replicate.training}",
    ]


def _row(one: Setting, judge: Judge, claim: str, session: Session) -> tuple[str, ...]:
    verdict = next(verdict for verdict in judge.verdicts() if verdict.name == claim)
    figures = [f"{c.value:.2g} ({c.low:.2g} to {c.high:.2g})" for c in verdict.criteria]
    values = [json.dumps(value) for value in one.values.values()]
    return (*values, *figures, f"{judge.margin(claim):.2g}", session.run.path.name)


def _tried(spec: Sweep, rows: Sequence[tuple[str, ...]], best: int) -> Tried:
    n = len(rows[0]) - len(spec.settings) - 2
    columns = (*spec.settings, *(f"criterion {i + 1}" for i in range(n)), "margin", "run")
    how = (
        f"with intervals widened for the {len(rows)} settings that were tried (Bonferroni)"
        if spec.confirm is None
        else f"on rows of {spec.confirm.of} that did not choose it, with fresh trainings"
    )
    return Tried(
        text=f"The best for {spec.best_for} by its margin: how far the criterion that is worst met is on "
        "its side of the threshold, in half-widths of its interval. The verdict above is of the best, "
        f"{how}.",
        columns=columns,
        rows=tuple(
            (*row[:-1], f"{row[-1]} (best)" if place == best else row[-1])
            for place, row in enumerate(rows)
        ),
    )


class _Alone:
    """Holds the sweep for one process; a second one waits and finds everything done."""

    def __init__(self, path: Path, console: Console) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock, self._console = FileLock(path), console

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._console.print("sweep: another process is at it; waiting", markup=False)
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
