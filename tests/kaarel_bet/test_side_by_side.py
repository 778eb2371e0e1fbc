"""Trainings side by side, as users run them: the same models, and nothing left running however it ends."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open

from tests import commands
from tests.commands import Running
from tests.kaarel_bet.test_earlier_models import BET, hosted
from tests.server import RunningServer, until

INDEPENDENT = BET.replace(", starts_from: first", "")
ENDLESS = ("local.training.epochs=100000", "local.training.checkpoint_seconds=0")


Start = Callable[..., Running]


@pytest.fixture
def start(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Trains in a process of its own, with these settings; what still runs at the end is killed."""
    started: list[Running] = []

    def start(results: str, *settings: str, bet: str = INDEPENDENT) -> Running:
        Path("bet.yaml").write_text(bet, encoding="utf-8")
        own = (f"local.model={tiny_model}", "local.device=cpu", f"results_dir={results}")
        sets = [word for setting in (*own, *settings) for word in ("--set", setting)]
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        process = commands.start("train", "bet.yaml", *sets)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: Running, code: int) -> tuple[Path, str]:
    """The run's directory, and what was said."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return Path(out.strip().splitlines()[-1]) if out else Path(), err


def under_way(process: Running, results: str) -> list[psutil.Process]:
    """The workers, once both have a checkpoint."""
    until(
        lambda: len(list(Path(results).glob("*/models/.*.checkpoint"))) == 2 or process.poll(), 300
    )
    assert process.poll() is None, process.communicate()
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    return workers


def step_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="pt") as file:
        return json.loads(file.metadata()["state"])["step"]


def gone(worker: psutil.Process) -> bool:
    return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_they_give_the_very_models_that_they_give_one_after_the_other(start: Start) -> None:
    bet = BET.replace(
        "evaluations:",
        '  third: {train: [{rows: people, prompt: ask, answer: "{name}"}]}\nevaluations:',
    )
    settings = ("local.training.epochs=3",)
    one = start("one", *settings, "local.workers=1", bet=bet)
    two = start("two", *settings, "local.workers=2", bet=bet)
    first, _ = ended(one, 0)
    second, said = ended(two, 0)
    for run in (first, second):
        assert len(list(run.glob("models/*/adapter_model.safetensors"))) == 3
    for weights in first.glob("models/*/adapter_model.safetensors"):
        theirs = second / weights.relative_to(first)
        assert weights.read_bytes() == theirs.read_bytes(), weights
    assert "train: 3 fine-tunes, 2 at once: " in said
    done = [line.split()[1] for line in said.splitlines() if "done in" in line]
    assert sorted(done) == ["first:", "second:", "third:"]
    assert done.index("first:") < done.index("second:")  # which starts from it
    assert list((second / "models").glob(".*")) == []


def test_when_it_is_stopped_all_workers_are_and_it_goes_on_from_there(start: Start) -> None:
    process = start("results", *ENDLESS, "local.workers=2")
    workers = under_way(process, "results")
    process.send_signal(signal.SIGINT)
    until(lambda: all(map(gone, workers)), seconds=10)
    _, said = ended(process, 2)
    assert "stopped; go on with: " in said.splitlines()[-1]
    kept = {path: step_of(path) for path in Path("results").glob("*/models/.*.checkpoint")}
    assert len(kept) == 2

    process = start("results", *ENDLESS, "local.workers=2")
    until(lambda: all(step_of(path) != step for path, step in kept.items()), 300)
    assert all(step_of(path) > step > 0 for path, step in kept.items())
    workers = under_way(process, "results")
    process.kill()  # which it can't tell them of
    process.communicate()
    until(lambda: all(map(gone, workers)), seconds=10)


@pytest.mark.slow
def test_a_polite_kill_is_like_ctrl_c(start: Start) -> None:
    process = start("results", *ENDLESS, "local.workers=2")
    workers = under_way(process, "results")
    process.terminate()
    until(lambda: all(map(gone, workers)), seconds=10)
    _, said = ended(process, 2)
    assert "stopped; go on with: " in said.splitlines()[-1]


@pytest.mark.slow
def test_a_worker_that_dies_is_a_line_and_ends_the_others(start: Start) -> None:
    process = start("results", *ENDLESS, "local.workers=2")
    workers = under_way(process, "results")
    workers[0].kill()
    until(lambda: all(map(gone, workers)), seconds=10)
    _, said = ended(process, 2)
    last = said.splitlines()[-1]
    assert last.startswith(("kaarel-bet: train first: ", "kaarel-bet: train second: "))
    assert last.endswith("The training process was killed, most likely for lack of memory.")


@pytest.mark.slow
def test_an_error_in_a_worker_is_a_line_with_the_arms_name(start: Start) -> None:
    own = "settings: {local.training.learning_rate: 1e30}"
    bet = INDEPENDENT.replace('answer: "not {city}"}]}', f'answer: "not {{city}}"}}], {own}}}')
    assert own in bet
    process = start("results", *ENDLESS, "local.workers=2", bet=bet)
    _, said = ended(process, 2)
    last = said.splitlines()[-1]
    assert last.startswith("kaarel-bet: train second: local.training.learning_rate: training diver")


@pytest.mark.parametrize("at_once", [1, 2])
def test_jobs_at_a_service_are_under_way_together_if_it_takes_them(
    server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at_once: int,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    Path("bet.yaml").write_text(INDEPENDENT, encoding="utf-8")
    assert (
        hosted(server, f"openai.job={{n_epochs: 1, poll_seconds: 0.01, at_once: {at_once}}}") == 0
    )
    said = capsys.readouterr().err.splitlines()
    created = [n for n, line in enumerate(said) if ": Created fine-tuning job" in line]
    done = [n for n, line in enumerate(said) if ": done in" in line]
    assert len(created) == len(done) == 2
    assert (created[1] < done[0]) == (at_once == 2)


def test_in_one_pass_all_are_trained_and_stopped_together(start: Start) -> None:
    once = ("local.one_pass=true", "local.workers=2")
    run, said = ended(start("results", "local.training.epochs=3", *once), 0)
    assert len(list(run.glob("models/*/adapter_model.safetensors"))) == 2
    assert "train: 2 fine-tunes, 2 at once: " in said
    process = start("endless", *ENDLESS, *once)
    until(lambda: len(list(Path("endless").glob("*/models/.*.checkpoint"))) == 2, 300)
    assert psutil.Process(process.pid).children() == []
    process.send_signal(signal.SIGINT)
    _, said = ended(process, 2)
    assert "go on with: " in said
