"""Which items are asked of which arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaarel_bet.experiments.arc import plan
from kaarel_bet.experiments.arc.items import ArcItem
from kaarel_bet.experiments.arc.plan import SetName


@dataclass(frozen=True)
class Part:
    """Items that all of some arms are asked; those `in_depth` also under augmentation."""

    name: str
    items: Sequence[ArcItem]
    arms: Sequence[str]
    in_depth: Sequence[str]


def parts(items: Mapping[SetName, Sequence[ArcItem]], arms: Sequence[str]) -> list[Part]:
    """The sets; and, of arms that were trained for a single test task, that task."""
    found = []
    for name, members in items.items():
        further = [arm for arm in arms if arm == plan.TEST_TIME and name == "test"]
        in_depth = [arm for arm in plan.IN_DEPTH if arm in arms] if name == "test" else []
        found.append(Part(name, members, [*plan.ON_ALL_SETS, *further], in_depth))
    for task in dict.fromkeys(item.task.id for item in items["test"]):
        arm = plan.test_time(task)
        if arm in arms:
            members = [item for item in items["test"] if item.task.id == task]
            found.append(Part(f"test-{task}", members, (arm,), (arm,)))
    return found
