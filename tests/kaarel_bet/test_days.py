"""A chat template that writes the date: one day a run, whenever its steps are taken."""

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import backends.server.data_dir
import kaarel_bet.session
from backends.data import Message, Query
from kaarel_bet.cli import main
from tests.server import StartServer

BET = """
bet: 1
name: dated
question: Is it?
data: {people: {rows: [{id: a, name: Ann}, {id: b, name: Bob}, {id: c, name: Cem}, {id: d, name: Dan}]}}
prompts: {ask: "Who is {name}?"}
arms:
  tuned: {train: [{rows: people, prompt: ask, answer: "{name}"}]}
evaluations:
  who: {rows: people, prompt: ask, generate: {max_tokens: 2}, graders: {named: {contains: "{name}"}}}
claims: {it: {criteria: ["mean(named(who, tuned)) > 0.5"]}}
"""
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}"

Go = Callable[..., Path]


@pytest.fixture
def dated_model(tiny_model: Path, tmp_path: Path) -> Path:
    model = tmp_path / "dated-model"
    shutil.copytree(tiny_model, model)
    template = model / "chat_template.jinja"
    template.write_text(DATED + template.read_text(encoding="utf-8"), encoding="utf-8")
    return model


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def on(day: str) -> None:
        class Then(date):
            @classmethod
            def today(cls) -> "Then":
                return cls.fromisoformat(day)

        for module in (kaarel_bet.session, backends.server.data_dir):
            monkeypatch.setattr(module, "date", Then)

    return on


@pytest.fixture
def go(dated_model: Path, capsys: pytest.CaptureFixture[str], on: Callable[[str], None]) -> Go:
    """Takes a step on a day, with these settings over the others; returns the run's directory."""
    Path("bet.yaml").write_text(BET, encoding="utf-8")

    def go(step: str, day: str, *settings: str) -> Path:
        on(day)
        own = (f"local.model={dated_model}", "local.device=cpu", "local.training.epochs=1")
        sets = [word for setting in (*own, *settings) for word in ("--set", setting)]
        assert main([step, "bet.yaml", *sets]) == 0
        return Path(capsys.readouterr().out.strip().splitlines()[-1])

    return go


def prompts(run: Path) -> set[str]:
    files = (run / "scores").glob("*/*.jsonl")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {json.loads(line)["prompt"].splitlines()[0] for line in lines}


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "models/tuned.json").read_text(encoding="utf-8"))


def test_a_run_keeps_the_day_of_its_first_step(go: Go) -> None:
    run = go("generate_data", "2024-02-05")
    assert go("train", "2024-02-06") == run
    assert go("test", "2024-03-01") == run
    assert prompts(run) == {"Today: 05 Feb 2024"}
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["date"] == manifest["backend"]["date"] == "2024-02-05"
    assert record(run)["hyperparameters"]["date"] == "2024-02-05"


def test_a_model_trained_with_another_date_is_another_model(go: Go) -> None:
    first = go("train", "2024-02-05")
    later = go("train", "2024-02-06", "dated.question=Why?")
    assert record(later)["trained_in"] is None
    assert record(later)["identity"] != record(first)["identity"]


def test_runs_of_one_set_date_share_their_models(go: Go) -> None:
    first = go("train", "2024-02-05", "local.date=2023-01-31")
    later = go("test", "2024-02-06", "local.date=2023-01-31", "dated.question=Why?")
    assert record(later)["trained_in"] == first.name
    assert prompts(later) == {"Today: 31 Jan 2023"}


def test_a_date_that_is_none_is_refused(go: Go, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bet.yaml").write_text(BET, encoding="utf-8")
    assert main(["check", "bet.yaml", "--set", "local.date=2024-02-31"]) == 2
    told = capsys.readouterr().err
    assert "local.date" in told
    assert len(told.splitlines()) == 1


def test_a_server_keeps_the_day_of_its_data(
    start_server: StartServer, small_training: Any, dated_model: Path, on: Callable[[str], None]
) -> None:
    local = small_training.model_copy(update={"model": str(dated_model)})
    rendered = []
    for day in ("2024-02-05", "2024-02-06"):
        on(day)
        server = start_server(local=local)
        query = Query(id="q", messages=(Message(role="user", content="Who?"),))
        rendered.append(server.parts.inference.encoder.render(query))
        server.fine_tune()
        orders = server.parts.jobs._local
        rendered.append(str(orders.date))
        server.stop()
    assert rendered[0].startswith("Today: 05 Feb 2024")
    assert rendered[:2] == rendered[2:]
    assert rendered[1] == "2024-02-05"
