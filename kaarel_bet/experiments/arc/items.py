"""The records that tell findings what was asked."""

from collections.abc import Sequence
from typing import Literal

from backends.schema import Strict
from kaarel_bet.experiments.arc.grids import ArcTask, Grid
from kaarel_bet.experiments.arc.plan import SetName


class ArcItem(Strict):
    """One test input of a task; `index` says which."""

    id: str
    part: SetName
    task: ArcTask
    index: int

    @property
    def expected(self) -> Grid:
        """The right answer."""
        return self.task.test[self.index].output


class CountingItem(Strict):
    """A question about a grid, and the answer."""

    id: str
    part: Literal["counting"] = "counting"
    answer: str


def arc_items(tasks: Sequence[ArcTask], part: SetName) -> list[ArcItem]:
    """One item for every test input."""
    return [
        ArcItem(id=f"{part}/{task.id}/{index}", part=part, task=task, index=index)
        for task in tasks
        for index in range(len(task.test))
    ]
