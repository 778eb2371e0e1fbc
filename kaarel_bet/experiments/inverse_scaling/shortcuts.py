"""What can be had without any model: answering by surface features of the training rows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from kaarel_bet.experiments.inverse_scaling.items import Item

Key = Callable[[Item, str], object]
"""What of an item and one of its classes a rule looks at."""

SHORTCUTS: dict[str, Key] = {
    "the place that is right most often": lambda item, text: item.classes.index(text),
    "the class text that is right most often": lambda item, text: text,
    "the class text that is right most often in the template": lambda item, text: (
        item.group,
        text,
    ),
}
"""By name: "never 3 for π" is the last of them."""


def shortcut_answers(key: Key, train: Sequence[Item], test: Sequence[Item]) -> list[bool]:
    """Whether each test item is answered right by taking the class whose key is right most often.

    Shares are smoothed (Laplace), so that what was never seen counts as right half of the time; of
    equals the first class is taken.
    """
    seen: Counter[object] = Counter()
    right: defaultdict[object, int] = defaultdict(int)
    for item in train:
        for place, text in enumerate(item.classes):
            seen[key(item, text)] += 1
            right[key(item, text)] += place == item.answer

    def share(item: Item, text: str) -> float:
        known = key(item, text)
        return (right[known] + 1) / (seen[known] + 2)

    answers = []
    for item in test:
        shares = [share(item, text) for text in item.classes]
        answers.append(shares.index(max(shares)) == item.answer)
    return answers
