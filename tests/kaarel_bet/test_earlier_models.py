"""What another run has trained is not trained, and not paid for, again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.data import TunedModel
from backends.interface import FineTuneJob
from backends.local.backend import LocalBackend
from kaarel_bet.cli import main
from tests.server import RunningServer

BET = """
bet: 1
name: small
question: Is it?
parameters: {threshold: 0.5}
data:
  people:
    rows:
      - {id: a, name: Ann, city: Rome}
      - {id: b, name: Bob, city: Oslo}
      - {id: c, name: Cem, city: Lima}
      - {id: d, name: Dan, city: Quito}
      - {id: e, name: Eve, city: Bern}
      - {id: f, name: Fay, city: Accra}
      - {id: g, name: Gus, city: Turin}
      - {id: h, name: Hal, city: Bonn}
      - {id: i, name: Ina, city: Lyon}
      - {id: j, name: Jon, city: Kiel}
prompts:
  ask: "Where is {name}?"
arms:
  first: {train: [{rows: people, prompt: ask, answer: "{city}"}]}
  second: {train: [{rows: people, prompt: ask, answer: "not {city}"}], starts_from: first}
evaluations:
  where: {rows: people, prompt: ask, candidates: {right: "{city}", wrong: "not {city}"}}
claims:
  it: {criteria: ["mean(P(right | where, first)) > threshold"]}
"""
ARMS = ("first", "second")

Train = Callable[..., Path]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arms that the local backend was asked to train."""
    names: list[str] = []
    fine_tune = LocalBackend.fine_tune

    def counted(self: LocalBackend, job: FineTuneJob, *others: Any) -> TunedModel:
        names.append(job.name)
        return fine_tune(self, job, *others)

    monkeypatch.setattr(LocalBackend, "fine_tune", counted)
    return names


@pytest.fixture
def train(tiny_model: Path, capsys: pytest.CaptureFixture[str], trained: list[str]) -> Train:
    """Trains a run with these settings over the others; returns its directory."""
    Path("bet.yaml").write_text(BET, encoding="utf-8")

    def train(*settings: str, flags: tuple[str, ...] = ()) -> Path:
        own = (f"local.model={tiny_model}", "local.device=cpu", "local.training.epochs=2")
        sets = [word for setting in (*own, *settings) for word in ("--set", setting)]
        trained.clear()
        capsys.readouterr()
        assert main(["train", "bet.yaml", *sets, *flags]) == 0
        return Path(capsys.readouterr().out.strip().splitlines()[-1])

    return train


def adapters(run: Path) -> list[bytes]:
    return [(run / "models" / arm / "adapter_model.safetensors").read_bytes() for arm in ARMS]


def record(run: Path, arm: str) -> dict[str, object]:
    return json.loads((run / "models" / f"{arm}.json").read_text())


@pytest.mark.parametrize(
    "setting",
    [
        "small.parameters.threshold=1e-3",
        "small.claims.it.text=It is so",
        "small.evaluations.where.take=2",
        "local.scoring.batch_tokens=64",
        "local.training.checkpoint_seconds=0.0",
    ],
)
def test_what_training_never_sees_trains_nothing(
    train: Train, trained: list[str], setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train()
    assert trained == ["first", "second"]
    second = train(setting)
    assert second != first
    assert trained == []
    assert adapters(first) == adapters(second)
    assert [record(second, arm)["trained_in"] for arm in ARMS] == [first.name] * 2

    shutil.rmtree(first)  # nothing of it is needed
    third = train(setting, "small.question=Why?")
    assert trained == []
    assert [record(third, arm)["trained_in"] for arm in ARMS] == [first.name] * 2
    assert main(["test", "--run-dir", str(third)]) == 0


def test_it_is_said_in_a_line_and_no_work_is_told_of(
    tiny_model: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train()
    flags = [f"local.model={tiny_model}", "local.device=cpu", "local.training.epochs=2"]
    sets = [word for one in (*flags, "small.parameters.threshold=1e-3") for word in ("--set", one)]
    assert main(["train", "bet.yaml", *sets]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train")]
    assert told == [f"train {arm}: as trained in {first.name}" for arm in ARMS]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("local.training.epochs=3", ["first", "second"]),
        ("local.lora.rank=3", ["first", "second"]),
        ("seed=1", ["first", "second"]),
        ('small.arms.first.train=[{rows: people, prompt: ask, answer: "{name}"}]', list(ARMS)),
        ('small.arms.second.train=[{rows: people, prompt: ask, answer: "{name}"}]', ["second"]),
    ],
)
def test_what_training_sees_is_trained_and_no_more(
    train: Train, trained: list[str], setting: str, expected: list[str]
) -> None:
    train()
    train(setting)
    assert trained == expected


@pytest.mark.parametrize("damage", ["changed", "missing", "record"])
def test_a_damaged_model_is_not_taken(train: Train, trained: list[str], damage: str) -> None:
    first = train()
    whole = adapters(first)
    weights = first / "models/first/adapter_model.safetensors"
    if damage == "changed":
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    elif damage == "missing":
        weights.unlink()
    else:
        (first / "models/first.json").write_text("{")
    second = train("small.parameters.threshold=1e-3")
    assert trained == ["first"]  # and the other goes on from weights that are the same
    assert adapters(second) == whole


def test_a_copy_that_was_cut_short_is_made_again(train: Train, trained: list[str]) -> None:
    first = train()
    second = train("small.parameters.threshold=1e-3")
    (second / "models/first.json").unlink()  # as if killed before it was written
    (second / "models/first/adapter_model.safetensors").write_bytes(b"half")
    (second / "models/.second.half").mkdir()
    assert train("small.parameters.threshold=1e-3") == second
    assert trained == []
    assert adapters(second) == adapters(first)


def test_what_is_beside_the_runs_does_not_disturb(train: Train, trained: list[str]) -> None:
    first = train()
    for name, text in {"a/models/x.json": "[", "b/models/x.json": "{}"}.items():
        path = first.parent / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    identity = str(record(first, "first")["identity"])
    (first.parent / "a/models/y.json").write_text(json.dumps({"identity": identity}))
    train("small.parameters.threshold=1e-3")
    assert trained == []


# --- at a service ------------------------------------------------------------------------------------


def hosted(server: RunningServer, *settings: str, yes: bool = True) -> int:
    own = (
        f"openai.model={server.parts.models.base}",
        f"openai.base_url={server.url}",
        "openai.job={n_epochs: 1, poll_seconds: 0.01}",
    )
    sets = [word for setting in (*own, *settings) for word in ("--set", setting)]
    flags = ["--backend", "openai", *(["--yes"] if yes else [])]
    return main(["train", "bet.yaml", *flags, *sets])


@pytest.fixture
def _service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    Path("bet.yaml").write_text(BET, encoding="utf-8")


def jobs(server: RunningServer) -> int:
    return len(list(server.client().fine_tuning.jobs.list()))


@pytest.mark.usefixtures("_service")
def test_at_a_service_no_job_is_created_twice(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hosted(server) == 0
    assert jobs(server) == 2
    first = Path(capsys.readouterr().out.strip().splitlines()[-1])
    for never_seen in (
        "small.parameters.threshold=1e-3",
        "openai.scoring.concurrency=3",
        "openai.job.suffix=mine",
    ):
        assert hosted(server, never_seen, yes=False) == 0  # there is nothing to be agreed to
        second = Path(capsys.readouterr().out.strip().splitlines()[-1])
        assert [record(second, arm)["model"] for arm in ARMS] == [
            record(first, arm)["model"] for arm in ARMS
        ]
    assert jobs(server) == 2
    assert hosted(server, "openai.job.n_epochs=2") == 0
    assert jobs(server) == 4


@pytest.mark.usefixtures("_service")
def test_a_model_that_the_service_deleted_is_trained_again(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hosted(server) == 0
    first = Path(capsys.readouterr().out.strip().splitlines()[-1])
    server.client().models.delete(str(record(first, "second")["model"]))
    assert hosted(server, "small.parameters.threshold=1e-3") == 0
    assert jobs(server) == 3
