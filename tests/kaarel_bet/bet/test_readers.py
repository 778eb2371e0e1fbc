"""Rows from files in every form, and from the hub."""

import datetime
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import polars
import pytest

from backends.errors import DataError
from kaarel_bet.bet.readers import from_hub, read_rows
from kaarel_bet.bet.schema import Hub

_TWO = [{"a": "x", "b": "1"}, {"a": "y", "b": ""}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"a,b\nx,1\ny,\n"),
        ("a.csv", b"\xef\xbb\xbfa,b\r\nx,1\r\n\r\ny,\r\n"),
        ("a.csv", b',a,b\n0,x,1\n1,"y",""\n'),
        ("a.jsonl", b'{"a": "x", "b": "1"}\n{"a": "y", "b": ""}\n\n'),
        ("a.jsonl", b'\xef\xbb\xbf{"a": "x", "b": "1"}\n\n{"a": "y", "b": ""}'),
    ],
)
def test_files_give_the_same_rows_in_every_form(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_rows(tmp_path / name) == _TWO


@pytest.mark.parametrize("folder", [".", "split=train", "[ab]*"])
def test_parquet_gives_the_same_rows_whatever_its_folder_is_called(
    tmp_path: Path, folder: str
) -> None:
    path = tmp_path / folder / "a.parquet"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    polars.DataFrame(_TWO).write_parquet(path)
    assert read_rows(path) == _TWO


def test_chats_come_as_they_stand_however_they_differ(tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "assistant", "content": "c", "weight": 0}]},
    ]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8"
    )
    assert read_rows(tmp_path / "a.jsonl") == chats


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{', "line 2: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: not an object"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
        ("a.jsonl", b'{"a": 1}\n\n{"b": 1}\n', r"line 3: other columns than the first row's \(a, b\)"),
        ("a.jsonl", b'{"a": 1}\n{"a": NaN}\n', r"line 2: a: must be text, a finite number.*\(got nan\)"),
        ("a.jsonl", b'{"a": ["\\ud83d"]}\n', r"line 1: a: '\\ud83d' is half of a surrogate pair"),
        ("a.jsonl", b'{"\\ud83d": 1}\n', r"line 1: \\ud83d: '\\ud83d' is half of a surrogate pair"),
        ("a.csv", b'a,b\n"x\ny","1"\n"z\n,1', "line 4: not CSV"),
        ("a.csv", b"b" * 200_000, "line 1: not CSV"),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3: 1 cells where the first line names 2 columns"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: 3 cells where the first line names 2 columns"),
        ("a.csv", b"a,a\n1,2\n", "line 1: two columns have the same name"),
        ("a.jsonl", b"\n", "no rows"),
        ("a.csv", b"a,b\n", "no rows"),
        ("a.csv", b"a\n\xff", "line 2: not UTF-8"),
        ("a.parquet", b"no such thing", "not a .parquet file that can be read"),
        ("a.txt", b"", "must be a .jsonl, .csv or .parquet file"),
    ],
)  # fmt: skip
def test_files_that_can_not_be_read_are_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_rows(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)
    str(raised.value).encode()


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_files_that_are_not_there_or_folders_are_said_to_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: No such file or directory"):
        read_rows(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=rf"{name}: \w"):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("value", [datetime.date(2020, 1, 1), b"ab", float("nan")])
def test_what_parquet_holds_and_json_does_not_is_named_by_row_and_column(
    tmp_path: Path, value: Any
) -> None:
    polars.DataFrame({"a": ["x", "y"], "day": [None, value]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 2: day: must be text") as raised:
        read_rows(tmp_path / "a.parquet")
    assert repr(value)[:30] in str(raised.value)


def test_a_parquet_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    polars.DataFrame(_TWO * 50).write_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for length in range(0, len(whole), 20):
        (tmp_path / "a.parquet").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"not a \.parquet file that can be read") as raised:
            read_rows(tmp_path / "a.parquet")
        assert "\n" not in str(raised.value)


def test_a_parquet_file_that_polars_panics_at_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def panic(_: object) -> polars.DataFrame:
        raise polars.exceptions.PanicException("index out of bounds\nin Rust")

    monkeypatch.setattr(polars, "read_parquet", panic)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"can be read \(index out of bounds\)$"):
        read_rows(tmp_path / "a.parquet")


_SHARD = "data/{}-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("files", "hub", "taken"),
    [
        (["README.md", "a.csv", _SHARD.format("train")], {}, "a.csv"),
        (["train.jsonl", "test.jsonl"], {}, "train.jsonl"),
        (["train.jsonl", "test.jsonl"], {"split": "test"}, "test.jsonl"),
        ([_SHARD.format("train"), _SHARD.format("test")], {"split": "test"}, _SHARD.format("test")),
        (["de/train.csv", "en/train.csv"], {"name": "en"}, "en/train.csv"),
        (["de/train.csv", "en/train.csv"], {}, 2),
        (["train.jsonl", "test.jsonl"], {"split": "dev"}, 2),
        (["README.md"], {}, 0),
    ],
)
def test_the_hubs_one_file_of_rows_is_taken(
    monkeypatch: pytest.MonkeyPatch, files: list[str], hub: dict[str, str], taken: str | int
) -> None:
    class Api:
        def list_repo_files(self, repository: str, *, repo_type: str) -> list[str]:
            assert (repository, repo_type) == ("org/name", "dataset")
            return files

    def download(repository: str, file: str, *, repo_type: str) -> str:
        assert (repository, repo_type) == ("org/name", "dataset")
        return file

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    asked = Hub(path="org/name", **hub)
    if isinstance(taken, str):
        assert from_hub(asked, "get it") == Path(taken)
    else:
        with pytest.raises(DataError, match=rf"org/name has {taken} .* files, not one; get it"):
            from_hub(asked, "get it")
