"""Which run and which backend a command works with, and agreeing to what costs money.

Nothing here bills, so a stand-in says that it would.
"""

import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

import backends
from backends.data import TrainingExample
from backends.errors import DataError, RunDirectoryError, SettingsError
from backends.interface import Backend, Capabilities, Estimate
from kaarel_bet.experiments.interface import Arm, Training
from kaarel_bet.manifest import ArmEntry
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session, open_session
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


def of(who: Session, work: Sequence[Estimate]) -> list[tuple[Backend, Estimate]]:
    return [(who.backend, one) for one in work]


def test_the_estimate_is_shown_in_all() -> None:
    free, shown = session(costs_money=False)
    free.agree_to("train: 2 fine-tunes", of(free, WORK))
    expected = "train: 2 fine-tunes: 2,000 tokens, 3 requests, about $1.75 (model m)"
    assert shown.getvalue().strip() == expected


def test_a_price_that_is_not_certain_is_a_range() -> None:
    free, shown = session(costs_money=False)
    free.agree_to("train", of(free, [*WORK, Estimate(tokens=1, usd=(0.25, 2.0))]))
    assert ", $2.00 to $3.75 (model m)" in shown.getvalue()


def test_a_price_that_is_not_known_in_full_is_not_shown() -> None:
    free, shown = session(costs_money=False)
    free.agree_to("train", of(free, [*WORK, Estimate(tokens=1)]))
    assert "$" not in shown.getvalue()


def test_without_a_terminal_nothing_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    paid, _ = session(costs_money=True)
    with pytest.raises(SettingsError, match="no terminal to ask at; pass --yes"):
        paid.agree_to("train", of(paid, WORK))


@pytest.mark.parametrize("answer", ["", "n", "no", "what?"])
def test_anything_but_yes_declines(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    paid, _ = session(costs_money=True)
    with pytest.raises(SettingsError, match="declined; nothing was spent"):
        paid.agree_to("train", of(paid, WORK))


def test_yes_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    paid, shown = session(costs_money=True)
    paid.agree_to("train", of(paid, WORK))
    assert "Go on?" in shown.getvalue()


def test_the_flag_goes_on_without_asking() -> None:
    paid, shown = session(costs_money=True, assume_yes=True)
    paid.agree_to("train", of(paid, WORK))
    assert "Go on?" not in shown.getvalue()


# --- which run -------------------------------------------------------------------------------

MINE = """\
bet: 1
name: mine
question: Does it?
data:
  words: {file: words.csv}
arms:
  tuned:
    train: [{rows: words, prompt: "{word}?", answer: "{word}"}]
    settings: {local.training.epochs: 3}
evaluations:
  asked: {rows: words, prompt: "{word}?", candidates: {right: "{word}"}}
claims:
  learns: {criteria: ["mean(P(right | asked, tuned)) > 0.5"]}
"""


@pytest.fixture
def _mine() -> None:
    Path("mine.yaml").write_text(MINE, encoding="utf-8")
    Path("words.csv").write_text("word\na\nb\n", encoding="utf-8")


def opened(
    bet: str | None = "mine.yaml", *assignments: str, run_dir: Path | None = None
) -> Session:
    return open_session(
        config=None,
        experiment=bet,
        backend=None,
        run_dir=run_dir,
        assignments=assignments,
        assume_yes=True,
        console=Console(file=io.StringIO()),
    )


def started(*, with_data: bool = False) -> Path:
    """A run of the bet, killed after its settings or after its data."""
    first = opened()
    first.run.write_settings(first.settings.frozen())
    if with_data:
        (first.run.path / "manifest.json").write_text("{}", encoding="utf-8")
    return first.run.path


@pytest.mark.usefixtures("_mine")
def test_a_run_is_found_by_the_content_of_its_files() -> None:
    path = started(with_data=True)
    assert path.name.endswith("-mine")
    assert opened().run.path == path
    assert opened("mine.yaml", "mine.replicate.training=2").run.path != path
    Path("words.csv").rename("kept.csv")
    assert opened().run.path == path  # it has its data
    Path("words.csv").write_text("word\na\nc\n", encoding="utf-8")
    assert opened().run.path != path


@pytest.mark.usefixtures("_mine")
def test_a_run_directory_needs_no_bet_and_no_files() -> None:
    path = started(with_data=True)
    Path("mine.yaml").unlink()
    Path("words.csv").unlink()
    again = opened(None, run_dir=path)
    assert again.settings.bet.name == "mine"
    with pytest.raises(RunDirectoryError, match=r"other settings \(mine\.replicate\.training\)"):
        opened(None, "mine.replicate.training=2", run_dir=path)


@pytest.mark.usefixtures("_mine")
def test_a_run_directory_with_a_bet_named_is_that_bets() -> None:
    path = started(with_data=True)
    assert opened("mine.yaml", run_dir=path).run.path == path
    with pytest.raises(RunDirectoryError, match=r"made with other settings \(experiment\)"):
        opened("conditional_rule", run_dir=path)


@pytest.mark.usefixtures("_mine")
def test_a_run_is_not_gone_on_with_by_a_bet_that_was_edited_since() -> None:
    path = started(with_data=True)
    mine = Path("mine.yaml")
    mine.write_text(mine.read_text(encoding="utf-8").replace("0.5", "0.6"), encoding="utf-8")
    with pytest.raises(
        RunDirectoryError, match=r"other settings \(mine\.claims\.learns\.criteria\)"
    ):
        opened("mine.yaml", run_dir=path)
    assert opened(None, run_dir=path).run.path == path


@pytest.mark.usefixtures("_mine")
def test_a_run_without_its_data_takes_no_other_files() -> None:
    path = started()
    assert opened("mine.yaml", run_dir=path).run.path == path
    Path("words.csv").write_text("word\na\nc\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"words\.csv: not there, or not as it was"):
        opened(None, run_dir=path)


@pytest.mark.usefixtures("_mine")
def test_a_wrong_name_in_a_claim_is_refused_with_its_place() -> None:
    Path("mine.yaml").write_text(MINE.replace("| asked, tuned", "| asked, tund"), encoding="utf-8")
    with pytest.raises(
        SettingsError, match=r"^mine\.yaml, line 13, column \d+: claims\.learns\."
    ) as caught:
        opened()
    assert "did you mean 'tuned'?" in str(caught.value)


# --- backends --------------------------------------------------------------------------------


def entry(arm: str, own: dict[str, Any]) -> ArmEntry:
    learned = [TrainingExample(prompt="a", completion="b")]
    return Arm(arm, "", Training(learned, settings=own), arm).entry()


@pytest.mark.usefixtures("_mine")
def test_an_arm_with_settings_of_its_own_has_a_backend_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epochs: list[int] = []

    def open_backend(name: str, settings: Any, day: date, *, elsewhere: bool) -> object:
        epochs.append(settings.training.epochs)
        return object()

    monkeypatch.setattr(backends, "open_backend", open_backend)
    work = opened()
    assert work.backend_of(entry("base", {})) is work.backend
    own = work.backend_of(entry("tuned", {"local.training.epochs": 3}))
    assert own is not work.backend
    assert work.backend_of(entry("tuned", {"local.training.epochs": 3})) is own
    assert work.backend_of(entry("tuned", {"openai.job.n_epochs": 3})) is work.backend
    assert epochs == [12, 3]
    with pytest.raises(SettingsError, match=r"arms\.tuned\.settings: unknown key 'local\.epochs'"):
        work.backend_of(entry("tuned", {"local.epochs": 3}))
