"""The experiment over the wire: a hosted service, played by our own server on loopback."""

import json
import random
from pathlib import Path

import pytest
from pydantic import TypeAdapter

import backends
from backends.data import GenerationQuery
from backends.jsonl import read_jsonl
from backends.local.settings import LocalSettings
from kaarel_bet.cli import main
from tests.kaarel_bet.experiments.arc_tasks import random_task, save
from tests.kaarel_bet.small_experiments import arc
from tests.server import RunningServer


def command(directory: Path, tasks: Path, server: RunningServer) -> list[str]:
    settings = (
        *arc(tasks),
        f"openai.model={server.parts.models.base}",
        f"openai.base_url={server.url}",
        "openai.job={n_epochs: 1, poll_seconds: 0.01}",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    flags = ["--backend", "openai", "--yes", "--run-dir", str(directory)]
    return ["run", "arc", *flags, *words]


@pytest.mark.slow
def test_the_experiment_runs_over_the_wire_with_the_local_backends_answers(
    server: RunningServer, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    rng = random.Random(0)
    tasks = save(tmp_path / "tasks", *(random_task(f"t{i:02}", rng) for i in range(24)))
    run = tmp_path / "run"
    assert main(command(run, tasks, server)) == 0

    found = json.loads((run / "verdict.json").read_text())["verdicts"]
    assert len(found) == 5
    queries = read_jsonl(run / "data/queries-greedy.test.jsonl", TypeAdapter(GenerationQuery))
    local = backends.open_backend("local", LocalSettings(model=str(tiny_model), device="cpu"))
    expected = {r.id: r.texts for r in local.generate(local.base_model, queries)}
    lines = (run / "scores/base/greedy.test.jsonl").read_text().splitlines()
    assert {r["id"]: tuple(r["texts"]) for r in map(json.loads, lines)} == expected
    assert len(expected) == 2


@pytest.mark.slow
def test_search_is_refused_before_anything_is_written(
    server: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    rng = random.Random(0)
    tasks = save(tmp_path / "tasks", *(random_task(f"t{i:02}", rng) for i in range(24)))
    run = tmp_path / "run"
    assert main([*command(run, tasks, server), "--set", "arc.prediction.search=0.1"]) == 2
    assert "can't search for all completions" in capsys.readouterr().err
    assert not run.exists()
