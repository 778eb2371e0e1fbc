"""What is asked: multiple-choice items, and the wording that they share."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from backends.schema import Strict

Part = Literal["train", "test", "forgetting", "task"]
OTHER = "(other wordings)"

_NUMBER = re.compile(r"\d+")
_SMALLEST_SHARE = 0.02
"""Of the items that a wording must have, to count as a template."""


class Row(Strict):
    """A question as data files have it; `classes` are the options verbatim, a leading space included.

    `delimiter` goes between prompt and class; the length that `acc_norm` divides by is without it.
    """

    prompt: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    answer: int
    delimiter: str = ""


class Item(Row):
    """A row with its place in the experiment. `group` is its template, or for `part` "task" its task."""

    id: str
    part: Part
    group: str


def skeleton(text: str) -> str:
    """The text with "#" for every run of digits: what is left of it modulo numbers."""
    return _NUMBER.sub("#", text)


def normal(prompt: str) -> str:
    """The prompt without what doesn't tell prompts apart: case, and how much white space there is."""
    return " ".join(prompt.casefold().split())


def numbers(text: str) -> list[str]:
    """The runs of digits, in order."""
    return _NUMBER.findall(text)


def template_names(rows: Iterable[Row]) -> list[str]:
    """Every row's template: its skeleton up to "Q:", or `OTHER` where few rows share it."""
    found = [skeleton(row.prompt).partition(" Q:")[0] for row in rows]
    counts = Counter(found)
    least = max(2, _SMALLEST_SHARE * len(found))
    return [name if counts[name] >= least else OTHER for name in found]


def make_items(rows: Sequence[Row], *, part: Part, prefix: str) -> list[Item]:
    """The rows as items whose group is their template; ids count the rows from 1."""
    names = template_names(rows)
    return [
        Item(**row.model_dump(), id=f"{prefix}-{number:04}", part=part, group=name)
        for number, (row, name) in enumerate(zip(rows, names, strict=True), start=1)
    ]


def groups_of(items: Iterable[Item]) -> list[str]:
    """The groups that there are, sorted, rare wordings last."""
    return sorted({item.group for item in items}, key=lambda name: (name == OTHER, name))
