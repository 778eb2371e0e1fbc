"""Answers of other runs, taken over by who was asked what."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.settings import load_settings
from kaarel_bet.test import test as run_test_step
from tests.kaarel_bet.test_follow_ups import GuessAndJudge, Oracle


class OtherOracle(Oracle):
    def asked_as(self, model: str) -> str:
        return "another oracle"


def asked(
    run: str, backend: Oracle, names: tuple[str, ...] = ("Ann", "Bob")
) -> tuple[list[str], str]:
    """Who is asked in a run of that name, and what is said."""
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    directory = RunDirectory(Path("results", run))
    session = Session(load_settings({"experiment": "arc"}), directory, console, True)
    session.__dict__ |= {"experiment": GuessAndJudge(names), "backend": backend}
    run_test_step(session)
    return [f"{kind} {prompt}" for kind, prompt in backend.asked], shown.getvalue()


_ALL = ["generate Ann", "generate Bob", "score Ann", "score Bob"]


def test_a_second_run_asks_nobody_what_was_answered() -> None:
    first, said = asked("one", Oracle())
    assert first == _ALL
    assert "as given" not in said
    again, said = asked("two", Oracle())
    assert again == []
    assert said.count("base: 2 answers as given in one") == 2
    results = [p.read_bytes() for p in sorted(Path("results").glob("*/scores/base/*.jsonl"))]
    assert results[:2] == results[2:]


def test_only_what_is_new_is_asked() -> None:
    asked("one", Oracle())
    found, _ = asked("two", Oracle(), ("Ann", "Bob", "Cid"))
    assert found == ["generate Cid", "score Cid"]
    files = sorted(Path("results/two/scores/base").glob("*.jsonl"))
    assert [len(file.read_text().splitlines()) for file in files] == [3, 3]


def test_another_model_is_asked_itself() -> None:
    asked("one", Oracle())
    found, _ = asked("two", OtherOracle())
    assert found == _ALL


def test_a_run_needs_no_other_once_it_has_its_answers() -> None:
    asked("one", Oracle())
    asked("two", Oracle())
    shutil.rmtree("results/one")
    assert asked("two", Oracle())[0] == []
    assert asked("three", Oracle())[0] == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "{"),
        ("data/queries-guesses.jsonl", "{}\n"),
        ("scores/base/guesses.jsonl", "broken\n"),
    ],
)
def test_a_damaged_run_is_passed_over(file: str, content: str) -> None:
    asked("one", Oracle())
    Path("results/one", file).write_text(content, encoding="utf-8")
    assert asked("two", Oracle())[0][:2] == _ALL[:2]


def test_a_run_that_was_gone_on_with_another_model_vouches_for_nothing() -> None:
    with pytest.raises(KeyboardInterrupt):
        asked("one", Oracle(stops_at=1))
    asked("one", OtherOracle())
    assert asked("two", OtherOracle())[0] == _ALL
    assert asked("three", Oracle())[0] == _ALL


class NamelessOracle(Oracle):
    def asked_as(self, model: str) -> str | None:
        return None


def test_a_model_that_cannot_be_told_from_others_is_asked_again() -> None:
    asked("one", NamelessOracle())
    assert asked("two", NamelessOracle())[0] == _ALL


def test_queries_that_are_alike_share_an_answer() -> None:
    asked("one", Oracle(), ("Ann",))
    found, _ = asked("two", Oracle(), ("Ann", "Bob"))
    assert found == ["generate Bob", "score Bob"]
