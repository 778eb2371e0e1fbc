"""Which tasks are in which set: those that fit, and that share no pair with another set's."""

import math
import random
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.errors import SettingsError
from kaarel_bet.experiments.arc.grids import ArcTask, Pair, size
from kaarel_bet.experiments.arc.leakage import fingerprint
from kaarel_bet.experiments.arc.lengths import Lengths
from kaarel_bet.experiments.arc.plan import SETS, SetName
from kaarel_bet.experiments.arc.settings import SetSettings, SetsSettings
from kaarel_bet.experiments.arc.sources import load


@dataclass
class Drawn:
    """The tasks taken from a source, and what was passed over on the way to them."""

    tasks: list[ArcTask] = field(default_factory=list[ArcTask])
    too_long: int = 0
    leaking: int = 0
    """How many tasks share a pair with another set's; `leakage: allow` takes them all the same."""


def draw_sets(
    settings: SetsSettings, lengths: Lengths, seed: int
) -> tuple[dict[SetName, list[ArcTask]], dict[str, object]]:
    """The tasks of every set, and notes on how they were drawn.

    Sets of the same source are dealt from one draw, so that their tasks are alike in size. A task that
    shares a pair with one taken before, modulo augmentation, is dropped, refused or allowed as the
    settings say: whether the two would have come into different sets is not waited for.

    Raises:
        SettingsError: a source has too few tasks, or leaks and leakage is refused.
        DataError: tasks that can't be read.
    """
    by_name: dict[SetName, SetSettings] = {
        "train": settings.train,
        "other": settings.other,
        "test": settings.test,
    }
    pairs: dict[bytes, str] = {}
    sets: dict[SetName, list[ArcTask]] = {}
    notes: dict[str, object] = {}
    for source in dict.fromkeys(entry.source for entry in by_name.values()):
        wanted: dict[SetName, int | None] = {
            name: entry.n_tasks for name, entry in by_name.items() if entry.source == source
        }
        rng = random.Random(f"sets/{source}/{seed}")
        tasks = _in_order(load(source, f"arc.sets.{next(iter(wanted))}.source"), settings, rng)
        drawn = _draw(tasks, wanted, settings, lengths, pairs)
        _check_enough(drawn, wanted, source)
        rng.shuffle(drawn.tasks)
        for name, n_tasks in wanted.items():
            sets[name] = sorted(drawn.tasks[:n_tasks], key=lambda task: task.id)
            drawn.tasks = drawn.tasks[len(sets[name]) :]
        leaking = "passed over" if settings.leakage == "drop" else "allowed"
        notes[f"tasks of {source}"] = (
            f"{', '.join(f'{len(sets[name])} for {name}' for name in wanted)}; passed over: "
            f"{drawn.too_long} longer than {lengths.limit} tokens; sharing a pair with a task taken "
            f"before, {leaking}: {drawn.leaking}"
        )
    return {name: sets[name] for name in SETS}, notes


def _in_order(
    tasks: Sequence[ArcTask], settings: SetsSettings, rng: random.Random
) -> list[ArcTask]:
    if settings.choose == "random":
        return rng.sample(tasks, len(tasks))
    return sorted(tasks, key=lambda task: (_cells_asked(task), task.id))


def _cells_asked(task: ArcTask) -> int:
    """The cells of all its prompts and answers: a task with two test inputs is asked twice."""
    shown = sum(_cells(pair) for pair in task.train)
    return sum(shown + _cells(pair) for pair in task.test)


def _cells(pair: Pair) -> int:
    return math.prod(size(pair.input)) + math.prod(size(pair.output))


def _total(wanted: Mapping[SetName, int | None]) -> int | None:
    """How many tasks the sets need together; None for all."""
    numbers = [n for n in wanted.values() if n is not None]
    return sum(numbers) if len(numbers) == len(wanted) else None


def _draw(
    tasks: Sequence[ArcTask],
    wanted: Mapping[SetName, int | None],
    settings: SetsSettings,
    lengths: Lengths,
    pairs: dict[bytes, str],
) -> Drawn:
    """The first tasks that will do; `pairs` maps pairs taken to their task, and is added to.

    Tasks that all go to one set may share pairs with each other.
    """
    drawn = Drawn()
    own: dict[bytes, str] = {}
    seen = ChainMap(own, pairs) if len(wanted) > 1 else pairs
    for task in tasks:
        if len(drawn.tasks) == _total(wanted):
            break
        if not lengths.fits(task):
            drawn.too_long += 1
            continue
        prints = [fingerprint(pair) for pair in (*task.train, *task.test)]
        leak = next((seen[p] for p in prints if p in seen), None)
        if leak is not None:
            drawn.leaking += 1
            if settings.leakage == "refuse":
                raise SettingsError(
                    f"arc.sets.leakage: tasks {task.id} and {leak} share a pair modulo augmentation; "
                    "choose drop (one of them is left out) or allow"
                )
            if settings.leakage == "drop":
                continue
        drawn.tasks.append(task)
        own.update(dict.fromkeys(prints, task.id))
    pairs.update(own)
    return drawn


def _check_enough(drawn: Drawn, wanted: Mapping[SetName, int | None], source: str) -> None:
    total = _total(wanted)
    name = next(iter(wanted))
    if not drawn.tasks or (total is not None and len(drawn.tasks) < total):
        raise SettingsError(
            f"arc.sets.{name}: {source} has {len(drawn.tasks)} tasks that fit, not "
            f"{total or 'any'} ({drawn.too_long} are longer than arc.max_tokens, {drawn.leaking} share a "
            "pair with others); lower n_tasks or raise arc.max_tokens"
        )
