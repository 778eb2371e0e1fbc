"""Tasks as coloured grids: what was asked, what was expected, what was answered."""

from kaarel_bet.content import GridFigure, GridRow
from kaarel_bet.experiments.arc.encodings import Unreadable
from kaarel_bet.experiments.arc.evidence import Evidence
from kaarel_bet.experiments.arc.items import ArcItem
from kaarel_bet.experiments.arc.plan import SETS


def picture(known: Evidence, system: str, item: ArcItem) -> GridFigure:
    """The examples, and under them the test input with the right answer and the greedy one."""
    task = item.task
    rows = [
        GridRow(
            f"{item.part}, {task.id}: example {number}",
            {"input": pair.input, "output": pair.output},
        )
        for number, pair in enumerate(task.train, start=1)
    ]
    reply = known.greedy(system, item)
    answered = None if isinstance(reply, Unreadable) else reply
    asked = {"input": task.test[item.index].input, "expected": item.expected, "predicted": answered}
    name = f"{system}-{item.part}-{task.id}-{item.index}"
    return GridFigure(name, [*rows, GridRow(f"{item.part}, {task.id}: test", asked)])


def chosen(known: Evidence, system: str, *, solved: bool) -> list[ArcItem]:
    """Items that the system's greedy answer solves, or doesn't; those not trained on first."""
    items = [
        item
        for part in reversed(SETS)
        for item in known.of(part)
        if (known.greedy(system, item) == item.expected) == solved
    ]
    return items[: known.settings.n_pictured]
