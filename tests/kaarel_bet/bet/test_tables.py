"""Tables: rows from everywhere a bet can take them, with columns, ids and parts."""

import importlib.metadata
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from backends.errors import KaarelBetError, SettingsError
from backends.schema import Strict
from kaarel_bet.bet.schema import Bet, Table
from kaarel_bet.bet.tables import Tables, check_no_leak, make_tables
from kaarel_bet.generators import Generator


def tables(folder: Path, **data: Any) -> Tables:
    bet = Bet.model_construct(
        data={name: Table.model_validate_json(json.dumps(table)) for name, table in data.items()}
    )
    return make_tables(bet, folder, lambda text: tuple(text.encode()), seed=0)


def test_a_file_stands_beside_the_bet_and_rows_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\nx,1\ny,2\n")
    found = tables(tmp_path, t={"file": "a.csv"})
    assert found.rows["t"][1] == {"id": "row-0002", "a": "y", "b": "2"}
    assert found.notes["table t"] == {"from": "the file a.csv", "rows": 2}


def test_rows_may_have_ids_of_their_own(tmp_path: Path) -> None:
    found = tables(tmp_path, t={"rows": [{"id": 7, "a": "x"}, {"id": "y", "a": "z"}]})
    assert [row["id"] for row in found.rows["t"]] == ["7", "y"]


def test_parts_are_tables_of_their_own(tmp_path: Path) -> None:
    rows = [{"a": str(n)} for n in range(10)]
    found = tables(tmp_path, t={"rows": rows, "split": {"test": 3, "train": "rest"}})
    assert {name: len(part) for name, part in found.rows.items()} == {
        "t": 10,
        "t.test": 3,
        "t.train": 7,
    }
    assert check_no_leak(found.rows["t.train"], found.rows["t.test"], "a") == 0


def test_columns_are_picked_drawn_and_taken_from_others(tmp_path: Path) -> None:
    rows = [{"n": f"name {n}", "c": ["a", "b", "c"], "at": n % 3} for n in range(30)]
    columns = {
        "right": {"pick": "c", "at": "at"},
        "random": {"draw": "c"},
        "colour": {"draw": ["red", "blue"]},
        "other": {"other": "n"},
    }
    found = tables(tmp_path, t={"rows": rows, "columns": columns}).rows["t"]
    assert [row["right"] for row in found[:3]] == ["a", "b", "c"]
    assert {row["random"] for row in found} == {"a", "b", "c"}
    assert {row["colour"] for row in found} == {"red", "blue"}
    assert all(row["other"] != row["n"] for row in found)
    again = tables(tmp_path, t={"rows": rows, "columns": columns}).rows["t"]
    assert again == found


def test_another_rows_value_is_as_likely_as_it_is_frequent(tmp_path: Path) -> None:
    rows = [{"n": name} for name in "abbccccd"]
    columns = {f"x{number}": {"other": "n"} for number in range(300)}
    found = tables(tmp_path, t={"rows": rows, "columns": columns}).rows["t"]
    for row in found:
        drawn = Counter(row[column] for column in columns)
        others = Counter("abbccccd".replace(row["n"], ""))
        assert drawn.keys() == others.keys()
        for name, count in others.items():
            assert drawn[name] / 300 == pytest.approx(count / others.total(), abs=0.1)


class _Entry:
    """An installed package's generator, as `importlib.metadata` finds it."""

    name, value = "theirs", "their.module:GENERATOR"

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def load(self) -> Any:
        if self._rows is None:
            raise ModuleNotFoundError("No module named 'their'")
        return Generator(Strict, lambda *_: (self._rows, {})) if self._rows != 3 else 3


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"a": "x"}], None),
        ([], r"data\.t\.generator: theirs makes no rows"),
        ([{"a": "x"}, {"b": "y"}], r"data\.t: row 2: other columns"),
        ([{"a": Path()}], r"data\.t: row 1: a: must be text"),
        (None, r"data\.t\.generator: theirs can't be imported \(No module named 'their'\)"),
        (3, r"data\.t\.generator: their\.module:GENERATOR is no kaarel_bet\.generators\.Generator"),
    ],
)
def test_others_generators_are_found_and_their_rows_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: Any, says: str | None
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [_Entry(rows)])
    if says is None:
        assert tables(tmp_path, t={"generator": "theirs"}).rows["t"][0]["a"] == "x"
    else:
        with pytest.raises(SettingsError, match=says):
            tables(tmp_path, t={"generator": "theirs"})
    assert len(tables(tmp_path, t={"generator": "countries", "n": 3}).rows["t"]) == 3


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"rows": [{"a": 1}, {"b": 1}]}, r"data\.t\.rows\.1: other columns.*\(a, b\); a comma in a flow"),
        ({"rows": [{"a": 1}], "columns": {"x": {"pick": "b", "at": "a"}}}, r"t\.columns\.x: no column 'b'"),
        ({"rows": [{"a": [1], "b": 1}], "columns": {"x": {"pick": "a", "at": "b"}}}, "from 0 to 0"),
        ({"rows": [{"a": 1, "b": 0}], "columns": {"x": {"pick": "a", "at": "b"}}}, "must be of a list"),
        ({"rows": [{"a": 1}], "columns": {"x": {"other": "a"}}}, "all rows have the same a"),
        ({"rows": [{"a": 1}], "columns": {"a": {"draw": [1]}}}, "have a column of this name"),
        ({"rows": [{"id": 1}, {"id": "1"}]}, r"data\.t: row 2: the id '1' comes twice"),
        ({"file": "none.csv"}, r"data\.t\.file: no file .*none\.csv; no .jsonl"),
        ({"generator": "countrys"}, r"data\.t\.generator: no generator.*'countries'"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_are_refused(tmp_path: Path, table: Any, says: str) -> None:
    with pytest.raises(KaarelBetError, match=says):
        tables(tmp_path, t=table)


def test_a_leak_is_found_whatever_the_case_and_white_space() -> None:
    train = [{"prompt": text} for text in ("Add 1 and 2.", "Say it.")]
    test = [{"prompt": text} for text in ("add 1  and 2.", "Add 3 and 4.", "From 2 to 1.")]
    assert check_no_leak(train, test, "prompt") == 1


def test_a_leak_is_looked_for_in_columns_that_are_there() -> None:
    with pytest.raises(SettingsError, match="no column 'promt'; did you mean 'prompt'"):
        check_no_leak([{"prompt": "a"}], [{"prompt": "b"}], "promt")


def test_both_sides_of_a_share_are_all_rows_and_have_none_in_common(tmp_path: Path) -> None:
    rows = [{"id": str(number)} for number in range(9)]

    def kept(side: str) -> list[str]:
        table = {"rows": rows, "keep": {"share": 0.5, "side": side}}
        return [row["id"] for row in tables(tmp_path, t=table).rows["t"]]

    assert len(kept("first")) == 4
    assert sorted(kept("first") + kept("others")) == [row["id"] for row in rows]
    assert kept("first") == kept("first") != [row["id"] for row in rows[:4]]
