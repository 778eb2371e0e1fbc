"""Which tasks have pairs in common, however they are turned or coloured.

Of ARC-AGI-1's 400 evaluation tasks 376 are in ARC-AGI-2's training set and 7 in its evaluation set, one of
these under another name: a model that trained on the one shows nothing on the other.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kaarel_bet.experiments.arc.grids import N_COLOURS, ArcTask, Grid, Pair, size


@dataclass(frozen=True)
class Shared:
    """Two tasks with pairs in common; `n_pairs` of the first task's are in the other."""

    task: str
    other: str
    n_pairs: int


def fingerprint(pair: Pair) -> bytes:
    """The same for two pairs if, and only if, one is the other turned, mirrored or recoloured.

    The least of the pair's eight symmetric forms, with the colours of each numbered as they appear.
    """
    before, after = _array(pair.input), _array(pair.output)
    return min(
        _form(np.rot90(first, turns), np.rot90(second, turns))
        for first, second in ((before, after), (before.T, after.T))
        for turns in range(4)
    )


def shared(tasks: Iterable[ArcTask], others: Iterable[ArcTask]) -> list[Shared]:
    """Every task with every other that has a pair of it, in the order of `tasks`.

    Train and test pairs count alike, so that exchanging them hides nothing. As no augmentation hides
    anything either, tasks are best compared before theirs are made.
    """
    having: defaultdict[bytes, set[str]] = defaultdict(set)
    for other in others:
        for pair in (*other.train, *other.test):
            having[fingerprint(pair)].add(other.id)
    found: list[Shared] = []
    for task in tasks:
        prints = [fingerprint(pair) for pair in (*task.train, *task.test)]
        counts = Counter(other for own in prints for other in having.get(own, ()))
        found += [Shared(task.id, other, n) for other, n in sorted(counts.items())]
    return found


def _array(grid: Grid) -> np.ndarray:
    """The cells as bytes, (rows, columns)."""
    return np.frombuffer(b"".join(map(bytes, grid)), np.uint8).reshape(size(grid))


def _form(before: np.ndarray, after: np.ndarray) -> bytes:
    """Both shapes, then all cells row by row with the first colour to appear as 0, the next as 1 ..."""
    cells = before.tobytes() + after.tobytes()
    appearance = sorted((c for c in range(N_COLOURS) if c in cells), key=cells.index)
    numbered = cells.translate(bytes.maketrans(bytes(appearance), bytes(range(len(appearance)))))
    return bytes((*before.shape, *after.shape)) + numbered
