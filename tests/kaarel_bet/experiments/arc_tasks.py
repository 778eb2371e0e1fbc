"""Random grids and tasks for the tests of ARC's modules."""

import random
from pathlib import Path

from hypothesis import strategies as st

from kaarel_bet.experiments.arc.grids import ArcTask, Grid, Pair


@st.composite
def grids(draw: st.DrawFn, max_side: int = 30) -> Grid:
    columns = draw(st.integers(1, max_side))
    row = st.lists(st.integers(0, 9), min_size=columns, max_size=columns).map(tuple)
    return tuple(draw(st.lists(row, min_size=1, max_size=max_side)))


def pairs() -> st.SearchStrategy[Pair]:
    small = grids(max_side=5)
    return st.builds(Pair, input=small, output=small)


def tasks() -> st.SearchStrategy[ArcTask]:
    return st.builds(
        ArcTask,
        id=st.just("task"),
        train=st.lists(pairs(), min_size=1, max_size=4).map(tuple),
        test=st.lists(pairs(), min_size=1, max_size=3).map(tuple),
    )


def task(n_train: int = 2, n_test: int = 1, name: str = "task") -> ArcTask:
    """A task whose pairs are told apart by the colours of their first two cells."""
    all_pairs = [
        Pair(input=((i, j, 9),), output=((i,), (j,)))
        for i, n in ((1, n_train), (2, n_test))
        for j in range(n)
    ]
    return ArcTask(id=name, train=tuple(all_pairs[:n_train]), test=tuple(all_pairs[n_train:]))


def random_task(name: str, rng: random.Random, n_train: int = 2) -> ArcTask:
    """A task that shares nothing with others."""

    def grid() -> Grid:
        return tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in range(3))

    made = [Pair(input=grid(), output=grid()) for _ in range(n_train + 1)]
    return ArcTask(id=name, train=tuple(made[:-1]), test=tuple(made[-1:]))


def save(directory: Path, *tasks: ArcTask) -> Path:
    """Writes the tasks as files in the official format."""
    directory.mkdir(exist_ok=True)
    for task in tasks:
        (directory / f"{task.id}.json").write_text(task.model_dump_json(exclude={"id"}))
    return directory
