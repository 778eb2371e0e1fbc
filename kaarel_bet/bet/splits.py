"""Which rows are tested and which may be trained on."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.errors import SettingsError
from kaarel_bet.bet.prompts import cell
from kaarel_bet.bet.schema import LeaveOut, Split
from kaarel_bet.experiments.interface import Row

UNGROUPED = "(other wordings)"
"""What a column of groups has for rows that are of none; never left out as a group."""


@dataclass(frozen=True)
class Parts:
    """The rows of each part, and what is to be known of how they were split."""

    rows: dict[str, list[Row]]
    notes: dict[str, object] = field(default_factory=dict[str, object])


def normal(value: object) -> str:
    """A value without what doesn't tell texts apart: case, and how much white space there is."""
    return " ".join(str(value).casefold().split())


def split_rows(rows: Sequence[Row], split: Split, seed: int, where: str) -> Parts:
    """The rows of a table by the rules of its split.

    Raises:
        SettingsError: a rule can't be met, or leaves a part without rows.
    """
    held_out = split.leave_out.column if split.leave_out else None
    for column in (*split.stratify, *filter(None, (split.together, split.apart, held_out))):
        cell(rows[0], column, where)
    rng = random.Random(f"split/{seed}")
    sizes = {name: _number(size, len(rows)) for name, size in split.parts.items() if size != "rest"}
    notes: dict[str, object] = {}
    if split.leave_out is None and split.apart is None:
        parts, others = _at_random(rows, split, sizes, rng, where), rows
    else:
        ((name, size),) = sizes.items()
        if split.leave_out is not None:
            side, others, notes = _leave_out(rows, split.leave_out, rng, where)
        else:
            side, others = _apart(rows, split.apart or "", size, rng, where)
        parts = {name: stratified_order(side, split.stratify, rng)[:size]}
        if split.apart is not None:
            notes = {"rows left out": len(rows) - len(parts[name]) - len(others)}
    taken = {_key(row, split) for part in parts.values() for row in part}
    rest = [row for row in others if _key(row, split) not in taken]  # nor alike to any of theirs
    found = {name: parts.get(name, rest) for name in split.parts}
    for name, part in found.items():
        size = split.parts[name]
        # Of one row there is no standard error, unless one is all that was asked for.
        if len(part) < (min(size, 2) if isinstance(size, int) else 1):
            left = "fewer than two rows" if part else "no row"
            raise SettingsError(f"{where}: leaves {left} for '{name}' of the {len(rows)} there are")
    return Parts(found, notes)


def stratified_order(rows: Sequence[Row], columns: Sequence[str], rng: random.Random) -> list[Row]:
    """A random order whose every beginning has the columns' values in proportion."""
    strata: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        strata[tuple(str(row[column]) for column in columns)].append(row)
    placed = [
        ((place + 0.5) / len(stratum), rng.random(), row)
        for stratum in strata.values()
        for place, row in enumerate(rng.sample(stratum, len(stratum)))
    ]
    return [row for *_, row in sorted(placed, key=lambda entry: entry[:2])]


def _at_random(
    rows: Sequence[Row], split: Split, sizes: Mapping[str, int], rng: random.Random, where: str
) -> dict[str, list[Row]]:
    alike: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        alike[_key(row, split)].append(row)
    asked = sum(
        size * len(rows) if isinstance(size, float) else size
        for size in split.parts.values()
        if size != "rest"
    )
    if asked > len(rows) + 1e-6:
        raise SettingsError(
            f"{where}: {' and '.join(sizes)}: {asked:g} are more rows than the {len(rows)} there are"
        )
    parts: dict[str, list[Row]] = {name: [] for name in sizes}
    for first in stratified_order([group[0] for group in alike.values()], split.stratify, rng):
        group = alike[_key(first, split)]
        for name, size in sizes.items():
            if len(parts[name]) + len(group) <= size:
                parts[name] += group
                break
    return parts


def _leave_out(
    rows: Sequence[Row], by: LeaveOut, rng: random.Random, where: str
) -> tuple[list[Row], list[Row], dict[str, object]]:
    values = sorted({str(row[by.column]) for row in rows} - {UNGROUPED})
    if by.n >= len(values):
        raise SettingsError(
            f"{where}.leave_out: {by.n} of the {len(values)} values of {by.column} leave none to train on"
        )
    held_out = set(rng.sample(values, by.n))
    unseen = [row for row in rows if str(row[by.column]) in held_out]
    others = [row for row in rows if str(row[by.column]) not in held_out]
    return unseen, others, {f"{by.column} left out": sorted(held_out)}


def _apart(
    rows: Sequence[Row], column: str, size: int, rng: random.Random, where: str
) -> tuple[list[Row], list[Row]]:
    """Values are dealt to two sides until the first has rows enough."""
    if not all(isinstance(row[column], list | tuple) for row in rows):
        raise SettingsError(f"{where}.apart: {column} must be a column of lists")
    entries = [[str(value) for value in row[column]] for row in rows]
    place = {value: rng.random() for value in sorted({v for own in entries for v in own})}
    side: list[Row] = []
    others: list[Row] = []
    for percent in range(5, 100, 5):
        below = [{place[value] < percent / 100 for value in own} for own in entries]
        side = [row for row, sides in zip(rows, below, strict=True) if sides == {True}]
        others = [row for row, sides in zip(rows, below, strict=True) if True not in sides]
        if len(side) >= size:
            break
    return side, others


def _number(size: float, n_rows: int) -> int:
    return round(size * n_rows) if isinstance(size, float) else size


def _key(row: Row, split: Split) -> str:
    return normal(row[split.together]) if split.together else row["id"]
