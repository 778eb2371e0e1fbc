"""Agreeing to what costs money. Nothing here bills yet, so a stand-in says that it would."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from backends.errors import SettingsError
from backends.interface import Backend, Capabilities, Estimate
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.settings import load_settings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def session(*, costs_money: bool, assume_yes: bool = False) -> tuple[Session, io.StringIO]:
    shown = io.StringIO()
    made = Session(
        load_settings({}, where="test"),
        RunDirectory(Path("run")),
        Console(file=shown, width=200),
        assume_yes,
    )
    capabilities = Capabilities(
        prompt_loss=True,
        exact_scores=True,
        starts_from=True,
        search=True,
        costs_money=costs_money,
    )
    stand_in = SimpleNamespace(capabilities=capabilities, describe=lambda: {"model": "m"})
    made.__dict__["backend"] = cast("Backend", stand_in)
    return made, shown


WORK = [
    Estimate(tokens=1500, requests=2, usd=(1.25, 1.25)),
    Estimate(tokens=500, requests=1, usd=(0.5, 0.5)),
]


def test_the_estimate_is_shown_in_all() -> None:
    free, shown = session(costs_money=False)
    free.agree_to("train: 2 fine-tunes", WORK)
    expected = "train: 2 fine-tunes: 2,000 tokens, 3 requests, about $1.75 (model m)"
    assert shown.getvalue().strip() == expected


def test_a_price_that_is_not_certain_is_a_range() -> None:
    free, shown = session(costs_money=False)
    free.agree_to("train", [*WORK, Estimate(tokens=1, usd=(0.25, 2.0))])
    assert ", $2.00 to $3.75 (model m)" in shown.getvalue()


def test_a_price_that_is_not_known_in_full_is_not_shown() -> None:
    free, shown = session(costs_money=False)
    free.agree_to("train", [*WORK, Estimate(tokens=1)])
    assert "$" not in shown.getvalue()


def test_without_a_terminal_nothing_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    paid, _ = session(costs_money=True)
    with pytest.raises(SettingsError, match="no terminal to ask at; pass --yes"):
        paid.agree_to("train", WORK)


@pytest.mark.parametrize("answer", ["", "n", "no", "what?"])
def test_anything_but_yes_declines(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    paid, _ = session(costs_money=True)
    with pytest.raises(SettingsError, match="declined; nothing was spent"):
        paid.agree_to("train", WORK)


def test_yes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    paid, shown = session(costs_money=True)
    paid.agree_to("train", WORK)
    assert "Go on?" in shown.getvalue()


def test_the_flag_goes_on_without_asking() -> None:
    paid, shown = session(costs_money=True, assume_yes=True)
    paid.agree_to("train", WORK)
    assert "Go on?" not in shown.getvalue()
