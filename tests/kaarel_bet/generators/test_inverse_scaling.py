"""Rows of the Inverse Scaling tasks: from files, the card's templates and, over a network, the hub."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import polars
import pytest

from backends.errors import DataError, SettingsError
from kaarel_bet.bet.splits import UNGROUPED
from kaarel_bet.generators import Surroundings, generate
from kaarel_bet.generators.inverse_scaling import GENERATED, HUB
from kaarel_bet.generators.redefine_math import redefine_items, redefine_rows, templates

_ROW = ("Redefine π as 3÷1. A:", [" 3", " π"], 1)


def rows_of(
    task: str = "redefine_math",
    seed: int = 0,
    **parameters: Any,
) -> list[dict[str, Any]]:
    around = Surroundings(Path(), lambda text: tuple(text.encode()), seed, "data.items")
    return generate("inverse_scaling", {"task": task, **parameters}, around)[0]


def read(path: Path) -> list[tuple[str, list[str], int]]:
    found = rows_of(source=str(path))
    return [(row["prompt"], row["classes"], row["answer_index"]) for row in found]


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
        {"prompt": _ROW[0], "classes": [" 3", " π"], "answer_index": 1},
        {"prompt": _ROW[0], "classes": "[' 3', ' π']", "answer_index": 1},
        {
            "prompt": _ROW[0],
            "classes": '[" 3", " π"]',
            "answer_index": "1",
            "part": 1,
            "round": 2,
        },
        {"text": _ROW[0], "classes": [" 3", " π"], "target": 1},
        {"": 0, "prompt": _ROW[0], "other_prompt": "x", "classes": "[' 3',' π']", "answer_index": 1},
    ],
)  # fmt: skip
def test_every_official_form_is_read(tmp_path: Path, write: Any, record: dict[str, Any]) -> None:
    path = write(tmp_path / ("a.csv" if write is table else "a.jsonl"), record, record)
    assert read(path) == [_ROW, _ROW]


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
        read(path)


@pytest.mark.parametrize("field", ["prompt", "classes", "answer_index"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    short = {key: value for key, value in _GOOD.items() if key != field}
    with pytest.raises(DataError, match=rf"line 1: .*{field}.*: missing"):
        read(jsonl(tmp_path / "task.jsonl", short))


def test_a_row_of_several_lines_in_a_table_is_named_by_its_first(tmp_path: Path) -> None:
    bad = _GOOD | {"prompt": "two\nlines", "answer_index": 9}
    path = table(tmp_path / "a.csv", _GOOD | {"prompt": "x\ny\nz"}, bad)
    with pytest.raises(DataError, match="line 5: answer_index"):
        read(path)


@pytest.mark.parametrize("task", [task for task in HUB if task != "redefine_math"])
def test_offline_every_other_task_says_how_to_get_it(task: str) -> None:
    with pytest.raises(DataError, match=rf"{HUB[task]}.*as data\.items\.source") as error:
        rows_of(task)
    assert "\n" not in str(error.value)


def test_parquet_is_read_and_its_faulty_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    good = {"prompt": _ROW[0], "classes": _ROW[1], "answer_index": 1}
    polars.DataFrame([good, good]).write_parquet(path)
    assert read(path) == [_ROW, _ROW]
    polars.DataFrame([good, good | {"answer_index": 2}]).write_parquet(path)
    with pytest.raises(DataError, match="row 2: answer_index"):
        read(path)


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

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    if taken is None:
        with pytest.raises(DataError, match=r"has \d \.jsonl, \.csv or \.parquet files, not one"):
            rows_of("memo_trap", source="hub")
    else:
        assert len(rows_of("memo_trap", source="hub")) == 1
    assert asked == ([] if taken is None else [taken])


def test_a_file_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file; get its rows"):
        rows_of("neqa", source="none.jsonl")


def test_only_redefine_math_can_be_generated() -> None:
    with pytest.raises(SettingsError, match="only redefine_math can be generated"):
        rows_of("neqa", source="generated")


def test_generated_rows_say_that_they_are() -> None:
    around = Surroundings(Path(), lambda text: tuple(text.encode()), 0, "data.items")
    rows, notes = generate("redefine_math", {"n": 18}, around)
    assert notes["rows of redefine_math"] == GENERATED
    assert "not the official rows" in GENERATED
    assert len(rows) == 18
    assert len(str(notes["SHA-256 of its source"])) == 64


def test_more_rows_than_there_are_cannot_be_generated() -> None:
    with pytest.raises(SettingsError, match=r"data\.items\.n: there are only"):
        rows_of(n=10**6)


def test_generated_rows_are_those_of_before() -> None:
    """The hash is of the rows before bets were files."""
    rows = [[row["prompt"], row["classes"], row["answer_index"]] for row in rows_of()]
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
    assert digest == "a721e481c61b57dd7595cd9baa8f005b1d7cc679e0a8abca76c2e3e126087e5b"


def test_winobias_has_a_space_between_prompt_and_class(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"text": "He", "classes": ["is", "was"], "target": 0})
    assert rows_of("winobias_antistereotype", source=str(path))[0]["delimiter"] == " "
    assert rows_of("neqa", source=str(path))[0]["delimiter"] == ""


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("inverse_scalling", {}, "did you mean 'inverse_scaling'"),
        ("redefine_math", {"m": 3}, r"data\.items\.m: Extra inputs"),
        ("redefine_math", {"n": 0}, r"data\.items\.n"),
        (
            "inverse_scaling",
            {"task": "neqqa"},
            r"data\.items\.task: no task 'neqqa'; did you mean 'neqa'",
        ),
    ],
)
def test_generators_and_their_parameters_are_checked(
    name: str, parameters: dict[str, Any], says: str
) -> None:
    around = Surroundings(Path(), lambda text: tuple(text.encode()), 0, "data.items")
    with pytest.raises(SettingsError, match=says):
        generate(name, parameters, around)


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
    rows = rows_of(n=360, seed=1)
    assert 130 < sum(row["answer_index"] for row in rows) < 230
    assert len({row["template"] for row in rows}) == 9
    assert redefine_rows(360, seed=1) != redefine_rows(360, seed=2)


def test_wordings_that_few_rows_share_are_no_templates(tmp_path: Path) -> None:
    common = [{"prompt": f"Say {n}.", "classes": ["a", "b"], "answer_index": 0} for n in range(60)]
    rare = {"prompt": "Something else.", "classes": ["a", "b"], "answer_index": 0}
    *most, last = rows_of(source=str(jsonl(tmp_path / "a.jsonl", *common, rare)))
    assert {row["template"] for row in most} == {"Say #."}
    assert last["template"] == UNGROUPED
    assert (most[7]["numbers"], last["numbers"]) == (["7"], [])
