import errno
import io
import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from backends.data import GenerationResult
from backends.errors import DataError
from backends.jsonl import AppendOnlyFile, dumps, parse_line, read_jsonl

_KIND = TypeAdapter(GenerationResult)
_LINE = '{"id":"a","prompt":"p","texts":["t"]}'


def result(name: str, text: str = "t") -> GenerationResult:
    return GenerationResult(id=name, prompt="p", texts=(text,))


def write(content: str | bytes) -> Path:
    path = Path("records.jsonl")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path, *, unfinished_ok: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read_jsonl(path, _KIND, unfinished_ok=unfinished_ok)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_record_a_line() -> None:
    records = [result("a"), result("b")]
    path = write("".join(dumps(record) + "\n" for record in records))
    assert read_jsonl(path, _KIND) == records


def test_the_last_line_needs_no_newline() -> None:
    assert [r.id for r in read_jsonl(write(f"{_LINE}\n{_LINE}"), _KIND)] == ["a", "a"]


def test_windows_line_ends_will_do() -> None:
    assert len(read_jsonl(write(f"{_LINE}\r\n{_LINE}\r\n"), _KIND)) == 2


def test_a_byte_order_mark_is_passed_over() -> None:
    path = write(f"\ufeff{_LINE}\n{_LINE}\n")
    assert len(read_jsonl(path, _KIND)) == 2
    assert len(read_jsonl(path, _KIND, unfinished_ok=True)) == 2


@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n\r\n", "\n  \n", "\n "])
def test_blank_lines_at_the_end_are_passed_over(end: str) -> None:
    path = write(f"{_LINE}\n{_LINE}{end}")
    assert len(read_jsonl(path, _KIND)) == 2
    assert len(read_jsonl(path, _KIND, unfinished_ok=True)) == 2


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b"])
def test_only_newlines_end_lines(separator: str) -> None:
    path = write(dumps(result("a", f"before{separator}after")) + "\n")
    assert read_jsonl(path, _KIND)[0].texts == (f"before{separator}after",)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("{", "JSON"),
        ("", "JSON"),
        ("[1]", "object"),
        ('{"id":"a","prompt":"p"}', "texts"),
        ('{"id":"a","prompt":"p","texts":[5]}', "texts.0"),
        ('{"id":5,"prompt":"p","texts":[]}', "id"),
        ('{"id":"a","prompt":"p","texts":[],"more":1}', "more"),
    ],
)
def test_a_bad_line_is_named(bad: str, problem: str) -> None:
    message = refusal(write(f"{_LINE}\n{bad}\n{_LINE}\n"))
    assert message.startswith("records.jsonl, line 2: ")
    assert problem in message


def test_an_error_about_one_line_starts_with_its_place() -> None:
    with pytest.raises(DataError, match=r"^over there: texts: "):
        parse_line('{"id":"a","prompt":"p"}', _KIND, where="over there")


@pytest.mark.parametrize("content", ["", "\n", "  \n\n"])
def test_an_empty_file_is_refused(content: str) -> None:
    assert refusal(write(content)) == "records.jsonl: no records in it"


def test_a_missing_file_is_named() -> None:
    assert refusal(Path("none.jsonl")) == "none.jsonl: No such file or directory"


def test_another_encoding_is_refused() -> None:
    assert refusal(write(b'{"id":"\xe9"}\n')) == "records.jsonl, line 1: not UTF-8 text"


def test_an_unfinished_last_line_is_refused_where_none_may_be() -> None:
    assert refusal(write(f"{_LINE}\n{_LINE[:10]}")).startswith("records.jsonl, line 2: ")


# Cut inside a string, after a whole record that lacks its newline, and inside a character.
_CUTS = [_LINE[:10].encode(), _LINE.encode(), '{"id":"é'.encode()[:-1]]


@pytest.mark.parametrize("rest", _CUTS, ids=["text", "newline", "character"])
def test_an_unfinished_last_line_is_passed_over(rest: bytes) -> None:
    path = write(f"{_LINE}\n".encode() + rest)
    assert [r.id for r in read_jsonl(path, _KIND, unfinished_ok=True)] == ["a"]


@pytest.mark.parametrize("content", ["", _LINE[:10]])
def test_a_file_without_a_finished_line_has_no_records_yet(content: str) -> None:
    assert read_jsonl(write(content), _KIND, unfinished_ok=True) == []


def test_a_bad_line_that_was_finished_is_named_all_the_same() -> None:
    path = write(f"{_LINE}\n{_LINE[:10]}\n{_LINE}\n")
    assert refusal(path, unfinished_ok=True).startswith("records.jsonl, line 2: ")


# --- appending -------------------------------------------------------------------------------


def test_records_are_in_the_file_when_append_returns() -> None:
    path = Path("new/folder/records.jsonl")
    with AppendOnlyFile(path) as file:
        file.append([result("a"), result("b")])
        assert [r.id for r in read_jsonl(path, _KIND)] == ["a", "b"]
        file.append([])
        file.append([result("c")])
    assert path.read_text(encoding="utf-8").count("\n") == 3


def test_records_are_added_to_those_there() -> None:
    path = write(f"{_LINE}\n")
    with AppendOnlyFile(path) as file:
        file.append([result("b")])
    assert [r.id for r in read_jsonl(path, _KIND)] == ["a", "b"]


@pytest.mark.parametrize("rest", _CUTS, ids=["text", "newline", "character"])
def test_an_unfinished_last_line_is_cut_off(rest: bytes) -> None:
    path = write(f"{_LINE}\n".encode() + rest)
    with AppendOnlyFile(path) as file:
        assert path.read_bytes() == f"{_LINE}\n".encode()
        file.append([result("b")])
    assert [r.id for r in read_jsonl(path, _KIND)] == ["a", "b"]


def test_a_file_with_nothing_but_an_unfinished_line_is_emptied() -> None:
    path = write(_LINE)
    with AppendOnlyFile(path):
        assert path.read_bytes() == b""


class _FullDisk(io.FileIO):
    """Takes 20 bytes, and then no more."""

    taken = 0

    def write(self, data: bytes | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.taken == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = super().write(bytes(data)[: 20 - self.taken])
        self.taken += done
        return done


def test_a_write_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(f"{_LINE}\n")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode, buffering: _FullDisk(path, mode))
        file = AppendOnlyFile(path)
    with file:
        with pytest.raises(OSError, match="No space left") as caught:
            file.append([result("b"), result("c")])
        assert caught.value.errno == errno.ENOSPC
        assert path.read_text() == f"{_LINE}\n"
    assert path.read_text() == f"{_LINE}\n"  # nor is anything written on closing


def test_a_write_that_never_reached_the_disk_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write(f"{_LINE}\n")
    with AppendOnlyFile(path) as file:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                file.append([result("b")])
        assert path.read_text() == f"{_LINE}\n"
        file.append([result("b")])  # once there is space again
    assert [r.id for r in read_jsonl(path, _KIND)] == ["a", "b"]


def test_records_are_forced_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    with AppendOnlyFile(Path("records.jsonl")) as file:
        file.append([result("a")])
    assert sizes == [Path("records.jsonl").stat().st_size]


def test_a_short_write_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.FileIO):
        def write(self, data: bytes | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().write(bytes(data)[:7])

    path = Path("records.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode, buffering: Slow(path, mode))
        file = AppendOnlyFile(path)
    with file:
        file.append([result("a"), result("b")])
    assert [r.id for r in read_jsonl(path, _KIND)] == ["a", "b"]
