"""Which templates are trained on alone, to see what that does to the others."""

from collections import Counter
from collections.abc import Sequence

from kaarel_bet.experiments.inverse_scaling.items import OTHER, Item, groups_of
from kaarel_bet.experiments.inverse_scaling.settings import TransferSettings


def templates_to_train_on(train: Sequence[Item], settings: TransferSettings) -> list[str]:
    """As many as are asked for and have rows enough, lying apart in the sorted list."""
    counts = Counter(item.group for item in train)
    usable = [g for g in groups_of(train) if g != OTHER and counts[g] >= settings.size]
    n = min(settings.templates, len(usable))
    return [usable[place * len(usable) // n] for place in range(n)]
