"""A task as another machine does it: the same model and the same answers, from files by content alone."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import open_backend
from backends.data import GenerationQuery, ScoringQuery
from backends.errors import ModelError, SettingsError
from backends.interface import Backend, Progress
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings, TrainingSettings
from kaarel_bet.executors.tasks import Outcome, Questions, Task, pack, perform, unpack
from tests.jobs import a_job, ignore

QUERIES = [
    ScoringQuery(id="e/1", prompt="Where?", candidates={"a": "Rome", "b": "Oslo"}),
    GenerationQuery(id="e/2", prompt="Who?", max_tokens=3),
    ScoringQuery(id="e/3", prompt="When?", candidates={"a": "now"}),
]


@pytest.fixture
def settings(tiny_model: Path) -> LocalSettings:
    training = TrainingSettings(epochs=2, dtype="float32", checkpoint_seconds=0)
    return LocalSettings(model=str(tiny_model), device="cpu", training=training)


@pytest.fixture
def backend(settings: LocalSettings) -> Backend:
    return open_backend("local", settings, elsewhere=True)


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def done_elsewhere(
    task: Task, directory: Path, report: Callable[[Progress], None] = ignore
) -> Outcome:
    """By way of pickles, in a directory that is gone when the outcome arrives."""
    try:
        return sent(perform(sent(pack(task, None)), directory, report))
    finally:
        shutil.rmtree(directory)


def elsewhere(tmp_path: Path) -> Path:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return directory


def test_it_gives_the_very_model_that_a_training_here_gives(
    backend: Backend, tmp_path: Path
) -> None:
    start = backend.fine_tune(a_job(tmp_path / "start"), ignore).model
    here = a_job(tmp_path / "here", starts_from=start)
    there = a_job(tmp_path / "there", starts_from=start)
    shutil.copy(there.training_file, tmp_path / "validation.jsonl")
    there = replace(there, validation_file=tmp_path / "validation.jsonl")
    here = replace(here, validation_file=tmp_path / "validation.jsonl")
    expected = backend.fine_tune(here, ignore)
    task, heard = Task(backend, there, backend.identity(there)), list[Progress]()
    tuned = unpack(task, done_elsewhere(task, elsewhere(tmp_path), heard.append))
    assert tuned is not None
    assert tuned.model == str(there.output)
    weights = [Path(model) / "adapter_model.safetensors" for model in (tuned.model, expected.model)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert tuned.training_curve == expected.training_curve
    assert heard[-1].done == heard[-1].total > 0
    # What came back is a finished training for the backend, which does nothing more.
    assert backend.fine_tune(there, ignore).model == tuned.model


def test_it_gives_the_very_answers_of_the_base_and_of_an_adapter(
    backend: Backend, tmp_path: Path
) -> None:
    tuned = backend.fine_tune(a_job(tmp_path / "job"), ignore).model
    for model in (backend.base_model, tuned):
        found: list[Any] = []
        asked = Questions(model, QUERIES)
        task = Task(backend, asked, backend.asked_as(model), take=found.extend)
        assert unpack(task, done_elsewhere(task, elsewhere(tmp_path))) is None
        scored = [q for q in QUERIES if isinstance(q, ScoringQuery)]
        generated = [q for q in QUERIES if isinstance(q, GenerationQuery)]
        assert found == [*backend.score(model, scored), *backend.generate(model, generated)]


def test_a_training_that_was_killed_goes_on_in_its_directory(
    backend: Backend, tmp_path: Path
) -> None:
    job = a_job(tmp_path / "job")
    task = Task(backend, job, backend.identity(job))

    class Killed(Exception):  # noqa: N818
        pass

    def kill(now: Progress) -> None:
        if now.done == 2:
            raise Killed

    steps: list[int] = []
    with pytest.raises(Killed):
        perform(pack(task, None), tmp_path / "there", kill)
    perform(pack(task, None), tmp_path / "there", lambda now: steps.append(now.done))
    assert min(steps) >= 1


@pytest.mark.parametrize("work", ["training", "questions"])
def test_a_machine_that_would_come_to_something_else_refuses(
    settings: LocalSettings, tmp_path: Path, work: str
) -> None:
    planned = settings.model_copy(update={"device": "cuda"})
    backend = open_backend("local", planned, elsewhere=True)
    assert isinstance(backend, LocalBackend)
    assert "cuda" in backend.describe()["device"]
    job = a_job(tmp_path / "job")
    identity = backend.identity(job) if work == "training" else backend.asked_as(backend.base_model)
    asked = job if work == "training" else Questions(backend.base_model, QUERIES)
    there = open_backend("local", settings)
    outcome = perform(replace(pack(Task(backend, asked, identity), None), backend=there), tmp_path)
    assert isinstance(outcome.error, SettingsError)
    assert "name local.device and the dtypes" in str(outcome.error)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device")
def test_planning_for_a_device_that_is_not_here_says_no_seconds(
    settings: LocalSettings, tmp_path: Path
) -> None:
    planned = settings.model_copy(update={"device": "cuda"})
    with pytest.raises(SettingsError, match=r"local\.device"):
        open_backend("local", planned)
    estimate = open_backend("local", planned, elsewhere=True).estimate(a_job(tmp_path / "job"))
    assert estimate.seconds is None
    assert estimate.tokens > 0


def test_an_error_that_another_attempt_would_meet_comes_back_as_it_would_be_raised_here(
    backend: Backend, tmp_path: Path
) -> None:
    tuned = backend.fine_tune(a_job(tmp_path / "job"), ignore).model
    identity = backend.asked_as(tuned)
    (Path(tuned) / "adapter_config.json").write_text("{}", encoding="utf-8")
    task = Task(backend, Questions(tuned, QUERIES), identity)
    outcome = done_elsewhere(task, elsewhere(tmp_path))
    with pytest.raises((ModelError, SettingsError)):
        unpack(task, outcome)


def test_an_adapter_that_is_gone_is_said_before_anything_is_sent(
    backend: Backend, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no adapter there"):
        pack(Task(backend, Questions(str(tmp_path / "gone"), QUERIES), ""), None)
