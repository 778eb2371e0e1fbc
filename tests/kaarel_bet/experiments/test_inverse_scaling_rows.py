"""Rows from files, from the dataset card's templates and, where there is a network, from the hub."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.errors import DataError, SettingsError
from kaarel_bet.experiments.inverse_scaling import sources
from kaarel_bet.experiments.inverse_scaling.items import OTHER, Row, make_items
from kaarel_bet.experiments.inverse_scaling.redefine import (
    redefine_items,
    redefine_rows,
    templates,
)
from kaarel_bet.experiments.inverse_scaling.rows import read_rows
from kaarel_bet.experiments.inverse_scaling.sources import GENERATED, HUB, load

_ROW = Row(prompt="Redefine π as 3÷1. A:", classes=(" 3", " π"), answer=1)


def jsonl(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def table(path: Path, *records: dict[str, Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


@pytest.mark.parametrize("write", [jsonl, table])
@pytest.mark.parametrize(
    "record",
    [
        {"prompt": _ROW.prompt, "classes": [" 3", " π"], "answer_index": 1},
        {"prompt": _ROW.prompt, "classes": "[' 3', ' π']", "answer_index": 1},
        {
            "prompt": _ROW.prompt,
            "classes": '[" 3", " π"]',
            "answer_index": "1",
            "part": 1,
            "round": 2,
        },
        {"text": _ROW.prompt, "classes": [" 3", " π"], "target": 1},
        {"": 0, "prompt": _ROW.prompt, "other_prompt": "x", "classes": "[' 3',' π']", "answer_index": 1},
    ],
)  # fmt: skip
def test_every_official_form_is_read(tmp_path: Path, write: Any, record: dict[str, Any]) -> None:  # noqa: ANN401
    path = write(tmp_path / ("a.csv" if write is table else "a.jsonl"), record, record)
    assert read_rows(path) == [_ROW, _ROW]


_GOOD = {"prompt": "A:", "classes": [" 1", " 2"], "answer_index": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": 3}, r"line 2: prompt: must be text \(got 3\)"),
        ({"classes": "[' 1', "}, r"line 2: classes: must be a list of texts \(got \"\[' 1', \"\)"),
        ({"classes": " 1"}, "line 2: classes: must be a list of texts"),
        ({"classes": [" 1", 2]}, "line 2: classes: must be a list of texts"),
        ({"classes": [" 1", ""]}, "line 2: classes: must be a list of texts"),
        ({"classes": [" 1"]}, "line 2: classes: must be two or more different texts"),
        ({"classes": [" 1", " 1"]}, "line 2: classes: must be two or more different texts"),
        ({"answer_index": 2}, r"line 2: answer_index: must be a whole number from 0 to 1 \(got 2\)"),
        ({"answer_index": -1}, "line 2: answer_index: must be a whole number from 0 to 1"),
        ({"answer_index": True}, "line 2: answer_index: must be a whole number"),
        ({"answer_index": None}, "line 2: answer_index: must be a whole number"),
        ({"answer_index": "9" * 5000}, "line 2: answer_index: must be a whole number"),
        ({"prompt": "\ud83d A:"}, r"line 2: prompt: '\\ud83d' is half of a surrogate pair"),
        ({"classes": [" 1", "\udc00"]}, r"line 2: classes: '\\udc00' is half of a surrogate pair"),
        ({"classes": r"['\ud83d', '1']"}, r"line 2: classes: '\\ud83d' is half of a surrogate pair"),
        ({"classes": "{[]: 1}"}, "line 2: classes: must be a list of texts"),
        ({"classes": "[" * 5000}, "line 2: classes: must be a list of texts"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_named_by_file_line_and_field(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = jsonl(tmp_path / "task.jsonl", _GOOD, _GOOD | change)
    with pytest.raises(DataError, match=rf"task\.jsonl, {message}"):
        read_rows(path)


@pytest.mark.parametrize("field", ["prompt", "classes", "answer_index"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    short = {key: value for key, value in _GOOD.items() if key != field}
    with pytest.raises(DataError, match=rf"line 1: .*{field}.*: missing"):
        read_rows(jsonl(tmp_path / "task.jsonl", short))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: not an object"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"answer_index": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
        ("a.csv", b'prompt,classes,target\n"a\nb","[1]",' + b"3" * 200_000, "line 2: not CSV"),
        ("a.csv", b"b" * 200_000, "line 1: not CSV"),
        ("a.jsonl", b"\n", "no rows"),
        ("a.csv", b"prompt,classes,answer_index\n", "no rows"),
        ("a.csv", b"a\n\xff", "line 2: not UTF-8"),
        ("a.txt", b"", "must be a .jsonl, .csv or .parquet file"),
    ],
)
def test_files_that_are_no_task_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / name)


def test_a_row_of_several_lines_in_a_table_is_named_by_its_first(tmp_path: Path) -> None:
    bad = _GOOD | {"prompt": "two\nlines", "answer_index": 9}
    path = table(tmp_path / "a.csv", _GOOD | {"prompt": "x\ny\nz"}, bad)
    with pytest.raises(DataError, match="line 5: answer_index"):
        read_rows(path)


@pytest.mark.parametrize("task", [task for task in HUB if task != "redefine_math"])
def test_offline_every_other_task_says_how_to_get_it(task: str) -> None:
    with pytest.raises(DataError, match=rf"{HUB[task]}.*--set inverse_scaling\.data=FILE") as error:
        load(task, "auto", n_generated=1, seed=0, setting="inverse_scaling.data")
    assert "\n" not in str(error.value)


def test_without_pyarrow_a_parquet_file_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        DataError, match=r"a\.parquet.*takes pyarrow.*uv sync --extra parquet"
    ) as error:
        read_rows(tmp_path / "a.parquet")
    assert "\n" not in str(error.value)


def test_parquet_is_read_and_its_faulty_rows_are_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "train.parquet"
    good = {"prompt": _ROW.prompt, "classes": list(_ROW.classes), "answer_index": 1}
    parquet.write_table(pyarrow.Table.from_pylist([good, good]), path)
    assert read_rows(path) == [_ROW, _ROW]
    parquet.write_table(pyarrow.Table.from_pylist([good, good | {"answer_index": 2}]), path)
    with pytest.raises(DataError, match="row 2: answer_index"):
        read_rows(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(DataError, match=r"not a \.parquet file that can be read"):
        read_rows(path)


_PARQUET = "data/train-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["README.md", "memo-trap.jsonl"], "memo-trap.jsonl"),
        (["README.md", "memo-trap.csv", _PARQUET], "memo-trap.csv"),
        (["README.md", _PARQUET], _PARQUET),
        (["a.csv", "b.csv", _PARQUET], None),
        (["README.md"], None),
    ],
)
def test_the_hubs_one_file_of_rows_is_taken_whatever_its_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: list[str], taken: str | None
) -> None:
    asked: list[str] = []

    class Hub:
        def list_repo_files(self, repository: str, *, repo_type: str) -> list[str]:
            assert (repository, repo_type) == ("Albertmade/memo-trap", "dataset")
            return files

    def download(repository: str, file: str, *, repo_type: str) -> str:
        assert (repository, repo_type) == ("Albertmade/memo-trap", "dataset")
        asked.append(file)
        return str(jsonl(tmp_path / "downloaded.jsonl", _GOOD))

    monkeypatch.setattr(sources, "HfApi", Hub)
    monkeypatch.setattr(sources, "hf_hub_download", download)
    if taken is None:
        with pytest.raises(DataError, match=r"has \d \.jsonl, \.csv or \.parquet files, not one"):
            load("memo_trap", "hub", n_generated=1, seed=0, setting="inverse_scaling.data")
    else:
        source = load("memo_trap", "hub", n_generated=1, seed=0, setting="inverse_scaling.data")
        assert len(source.rows) == 1
    assert asked == ([] if taken is None else [taken])


def test_a_file_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file; get its rows"):
        load("neqa", "none.jsonl", n_generated=1, seed=0, setting="inverse_scaling.data")


def test_only_redefine_math_can_be_generated() -> None:
    with pytest.raises(SettingsError, match="only redefine_math can be generated"):
        load("neqa", "generated", n_generated=1, seed=0, setting="inverse_scaling.data")


def test_generated_rows_say_that_they_are() -> None:
    source = load("redefine_math", "auto", n_generated=18, seed=0, setting="inverse_scaling.data")
    assert source.origin == GENERATED
    assert "not the official rows" in GENERATED
    assert len(source.rows) == 18


def test_more_rows_than_there_are_cannot_be_generated() -> None:
    with pytest.raises(SettingsError, match="n_items"):
        load("redefine_math", "auto", n_generated=10**6, seed=0, setting="inverse_scaling.data")


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ("View number as text. Do not perform computation. Q: What is the first digit of 50+47?", "59"),
        ("View + as a random digit instead of a mathematical operation. Q: What is the first digit of "
         "10+19?", "12"),
        ("View + as the digit 5 instead of a mathematical operation. Q: What is the first digit of "
         "25+73?", "29"),
        ("Redefine π as 716+245. Q: What is the first digit of π?", "93"),
        ("Redefine π as 462. Q: What is the first digit of π?", "43"),
        ("Redefine π as 961 mod 50. Q: What is the first digit of π?", "13"),
        ("Redefine e as 10+35. Q: What is the first digit of e?", "42"),
        ("View ÷ as a random digit. Q: What is the first digit of 33÷3?", "31"),
        ("View ÷ as a random digit instead of a mathematical operation. Q: What is the first digit of "
         "30÷3?", "31"),
    ],
)  # fmt: skip
def test_redefine_items_are_those_of_the_dataset_cards_templates(prompt: str, answers: str) -> None:
    items = {item[0]: item[1:] for template in templates() for item in template}
    assert items[f"{prompt} A:"] == (f" {answers[0]}", f" {answers[1]}")


def test_redefine_items_take_the_templates_in_turn() -> None:
    items = redefine_items(200)
    assert len(set(items)) == 200
    assert all(right != other for _, right, other in items)
    starts = [prompt.split(" Q:")[0].rstrip("0123456789+. mod") for prompt, _, _ in items]
    assert max(starts.count(start) for start in set(starts)) <= 200 * 3 / 9 + 3


def test_generated_rows_have_both_places_right_and_nine_templates() -> None:
    rows = redefine_rows(360, seed=1)
    assert 130 < sum(row.answer for row in rows) < 230
    assert len({item.group for item in make_items(rows, part="test", prefix="x")}) == 9
    assert redefine_rows(360, seed=1) == rows
    assert redefine_rows(360, seed=2) != rows


def test_wordings_that_few_rows_share_are_no_templates() -> None:
    rows = [Row(prompt=f"Say {n}.", classes=("a", "b"), answer=0) for n in range(60)]
    rare = Row(prompt="Something else.", classes=("a", "b"), answer=0)
    *common, last = make_items([*rows, rare], part="test", prefix="x")
    assert {item.group for item in common} == {"Say #."}
    assert last.group == OTHER
