"""The tables of a bet: rows from where its file says, with their columns, ids and parts."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from backends.errors import SettingsError
from backends.schema import did_you_mean
from kaarel_bet import generators
from kaarel_bet.bet.prompts import cell, unknown
from kaarel_bet.bet.readers import ENDINGS, check_rows, from_hub, place_among, read_rows
from kaarel_bet.bet.schema import Bet, Column, Table
from kaarel_bet.bet.splits import normal, split_rows
from kaarel_bet.experiments.interface import Row, Tokenize


@dataclass(frozen=True)
class Tables:
    """Rows by the name of their table or of its part (`items`, `items.test`), and what is known of them."""

    rows: Mapping[str, Sequence[Row]]
    notes: Mapping[str, object]


def make_tables(bet: Bet, folder: Path, tokenize: Tokenize, seed: int) -> Tables:
    """All tables of a bet; files are in `folder`.

    Raises:
        SettingsError: a table that can't be made as its keys say; names the key.
        DataError: a file that can't be read; names file and line.
    """
    rows: dict[str, Sequence[Row]] = {}
    notes: dict[str, object] = {}
    for name, table in bet.data.items():
        where = f"data.{name}"
        found, of_source = _source(table, folder, tokenize, seed, where)
        made = _kept(_with_ids(_with_columns(found, table, name, seed, where), where), table, seed)
        rows[name] = made
        notes[f"table {name}"] = of_source | {"rows": len(made)}
        if table.split is not None:
            parts = split_rows(made, table.split, seed, f"{where}.split")
            rows |= {f"{name}.{part}": members for part, members in parts.rows.items()}
            counts = {f"rows of {part}": len(members) for part, members in parts.rows.items()}
            notes[f"split of {name}"] = counts | parts.notes
    return Tables(rows, notes)


def check_no_leak(rows: Sequence[Row], others: Sequence[Row], column: str) -> int:
    """How many of the others have a value in a column, but for case and white space, that a row has.

    Raises:
        SettingsError: one of them has no such column.
    """
    seen = {normal(cell(row, column, "on")) for row in rows}
    return sum(normal(cell(row, column, "on")) in seen for row in others)


def _source(
    table: Table, folder: Path, tokenize: Tokenize, seed: int, where: str
) -> tuple[list[dict[str, Any]], dict[str, object]]:
    if table.rows is not None:
        placed = [(f"{where}.rows.{place}", dict(row)) for place, row in enumerate(table.rows)]
        hint = "; a comma in a flow mapping makes one silently: texts with commas or colons need quotes"
        check_rows(placed, SettingsError, hint)
        return [row for _, row in placed], {"from": "the bet's file"}
    if table.file is not None:
        if not (path := folder / table.file).is_file():
            there = sorted(p.name for p in path.parent.glob("*") if p.suffix in ENDINGS)
            hint = (
                did_you_mean(path.name, there) if there else "no .jsonl, .csv or .parquet is there"
            )
            raise SettingsError(f"{where}.file: no file {path}; {hint}")
        return read_rows(path), {"from": f"the file {table.file}"}
    if table.hub is not None:
        instead = f"get its rows where there is a network and name the file as {where}.file"
        rows = read_rows(from_hub(table.hub, instead))
        return rows, {"from": f"{table.hub.path} on the Hugging Face hub"}
    assert table.generator is not None
    surroundings = generators.Surroundings(folder, tokenize, seed, where)
    return generators.generate(table.generator, table.parameters, surroundings)


def _with_columns(
    rows: list[dict[str, Any]], table: Table, name: str, seed: int, where: str
) -> list[dict[str, Any]]:
    for column, rule in table.columns.items():
        key = f"{where}.columns.{column}"
        drawn = rule.draw if isinstance(rule.draw, str) else None
        for needed in (rule.pick, rule.at, rule.other, drawn):
            if needed is not None and needed not in rows[0]:
                raise unknown("column", needed, rows[0], key)
        if column in rows[0]:
            raise SettingsError(f"{key}: the rows have a column of this name")
        rng = random.Random(f"columns/{name}/{column}/{seed}")
        for row, value in zip(rows, _values(rows, rule, rng, key), strict=True):
            row[column] = value
    return rows


def _values(rows: Sequence[Row], rule: Column, rng: random.Random, key: str) -> list[Any]:
    if rule.other is not None:
        return _others(
            [row[rule.other] for row in rows], rng, f"{key}: all rows have the same {rule.other}"
        )
    if rule.draw is not None:
        lists = [row[rule.draw] if isinstance(rule.draw, str) else rule.draw for row in rows]
        return [rng.choice(_list(options, key)) for options in lists]
    assert rule.pick is not None
    assert rule.at is not None
    picked = ((_list(row[rule.pick], key), row[rule.at]) for row in rows)
    return [o[place_among(o, at, f"{key}.at", SettingsError)] for o, at in picked]


def _others(values: Sequence[Any], rng: random.Random, if_none: str) -> list[Any]:
    """For each value another of them that reads otherwise, the more likely the more rows have it."""
    alike: defaultdict[str, list[Any]] = defaultdict(list)
    for value in values:
        alike[str(value)].append(value)
    if len(alike) == 1:
        raise SettingsError(f"{if_none}, so there is no other")
    in_groups = [value for group in alike.values() for value in group]
    starts = dict(zip(alike, accumulate(map(len, alike.values()), initial=0), strict=False))
    found = []
    for value in map(str, values):
        place = rng.randrange(len(values) - len(alike[value]))
        # Those alike stand together: what is drawn from there on lies behind them.
        found.append(in_groups[place + (len(alike[value]) if place >= starts[value] else 0)])
    return found


def _list(value: object, key: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise SettingsError(f"{key}: must be of a list with entries (got {value!r:.40})")
    return value


def _kept(rows: list[Row], table: Table, seed: int) -> list[Row]:
    """Those that `keep` says, in their order; of two rows or more there is one on either side."""
    if table.keep is None or len(rows) < 2:
        return rows
    order = random.Random(f"keep/{seed}").sample(range(len(rows)), len(rows))
    n = min(max(1, round(table.keep.share * len(rows))), len(rows) - 1)
    first = set(order[:n])
    return [
        row for place, row in enumerate(rows) if (place in first) == (table.keep.side == "first")
    ]


def _with_ids(rows: list[dict[str, Any]], where: str) -> list[Row]:
    if "id" not in rows[0]:
        return [{"id": f"row-{number:04}"} | row for number, row in enumerate(rows, start=1)]
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        row["id"] = str(row["id"])
        if row["id"] in seen or not row["id"]:
            raise SettingsError(
                f"{where}: row {number}: the id {row['id']!r} comes twice, or is empty"
            )
        seen.add(row["id"])
    return [*rows]
