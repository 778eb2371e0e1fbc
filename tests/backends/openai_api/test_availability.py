"""Until when there is what is asked for: OpenAI's own dates are said before money is spent."""

from datetime import date
from pathlib import Path

import httpx2
import pytest

from backends.errors import ModelError, ServiceError
from backends.local.settings import LocalSettings
from backends.openai_api import availability
from backends.openai_api.availability import is_openais_own
from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.settings import OpenAISettings
from backends.server.models import served_name
from tests.jobs import a_job

MINI = "gpt-4.1-mini-2025-04-14"


class _Service:
    """OpenAI's own address, answered here: it knows its models and has nothing else."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def backend(self, model: str, tokenizer: Path, base_url: str | None = None) -> OpenAIBackend:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        settings = OpenAISettings(model=model, tokenizer=str(tokenizer), base_url=base_url)
        return OpenAIBackend(settings, client)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(f"{request.url.host}{request.url.path}")
        name = request.url.path.rpartition("/")[2]
        if "/models/" in request.url.path and name.startswith("gpt"):
            model = {"id": name, "object": "model", "created": 0, "owned_by": "system"}
            return httpx2.Response(200, json=model)
        code = "model_not_found" if "/models/" in request.url.path else None
        error = {"message": f"no {name}", "type": "x", "param": None, "code": code}
        return httpx2.Response(404, json={"error": error})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def the_day_is(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    monkeypatch.setattr(availability, "today", lambda: date.fromisoformat(day))


def test_the_dates_are_said_with_every_estimate_at_openai_itself(tiny_model: Path) -> None:
    told = _Service().backend(MINI, tiny_model).describe()
    assert told["new fine-tuning jobs"].startswith("until 2027-01-06")
    assert told["model and what is tuned from it"] == "until 2027-01-14"
    elsewhere = _Service().backend(MINI, tiny_model, "https://example.org/v1").describe()
    assert not any("2027" in text for text in elsewhere.values())


def test_after_the_last_day_no_job_is_asked_for_and_what_else_there_is_said(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, job = _Service(), a_job(tmp_path)
    the_day_is(monkeypatch, "2027-01-06")
    assert service.backend(MINI, tiny_model).estimate(job).tokens > 0
    the_day_is(monkeypatch, "2027-01-07")
    asked = len(service.asked)
    with pytest.raises(ServiceError, match=r"--backend local.*openai\.base_url.*kaarel-bet serve"):
        service.backend(MINI, tiny_model).estimate(job)
    assert len(service.asked) == asked
    other = service.backend(MINI, tiny_model, "https://example.org/v1")
    assert other.estimate(job).tokens > 0


def test_a_job_that_was_created_in_time_is_followed_after_the_last_day(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(tmp_path)
    job.output.parent.mkdir()
    job.output.with_name("arm.job.json").write_text("{}", encoding="utf-8")
    the_day_is(monkeypatch, "2027-01-07")
    assert _Service().backend(MINI, tiny_model).estimate(job).tokens > 0


@pytest.mark.parametrize(
    ("model", "day"),
    [
        ("gpt-4.1-nano-2025-04-14", "2026-10-23"),
        ("gpt-3.5-turbo-0125", "2026-10-23"),
        (MINI, "2027-01-14"),
        ("gpt-4o-mini-2024-07-18", "2027-01-14"),
    ],
)
def test_a_model_that_openai_has_shut_down_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, day: str
) -> None:
    the_day_is(monkeypatch, day)
    job = a_job(tmp_path)
    job.output.parent.mkdir()
    job.output.with_name("arm.job.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ServiceError, match=f"{model} was shut down on {day}; .*--backend local"):
        _Service().backend(model, tiny_model).estimate(job)


def test_the_default_is_what_a_new_user_can_have_from_their_own_server() -> None:
    assert OpenAISettings().model == served_name(LocalSettings().model)


def test_the_default_at_openai_is_no_riddle(tmp_path: Path) -> None:
    backend = _Service().backend(OpenAISettings().model, Path("auto"))
    with pytest.raises(ModelError, match=r"^openai\.model: .*openai\.base_url.*kaarel-bet serve"):
        backend.estimate(a_job(tmp_path))


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://my.openai.azure.com/openai/v1", False),
        ("https://api.openai.com.example.org/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_what_is_openais_own(address: str, *, own: bool) -> None:
    assert is_openais_own(address) is own
