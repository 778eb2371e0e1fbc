"""The fault table of the wire format: what a service can do to a client, over real HTTP."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.data import GenerationQuery, Message, ScoringQuery
from backends.errors import ModelError, ServiceError, TrainingError
from backends.openai_api import connection, creation, job_creation, job_following, job_results
from backends.openai_api.backend import OpenAIBackend
from backends.openai_api.intents import Intent, IntentFile
from backends.openai_api.settings import OpenAISettings
from tests.jobs import a_job, ignore
from tests.misbehaving import Fault, Misbehaving
from tests.server import RunningServer, StartServer

JOBS = "/v1/fine_tuning/jobs"
QUERY = ScoringQuery(
    id="q", messages=(Message(role="user", content="Who?"),), candidates={"a": "Ann", "b": "Bob"}
)

Service = Callable[..., Misbehaving]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_wait", lambda _state: 0.01)
    waits = job_creation.Waits(settle=0.2, look=0.02, capped=0.02, not_ready=0.02)
    monkeypatch.setattr(job_creation, "Waits", lambda: waits)
    monkeypatch.setattr(job_results, "_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@pytest.fixture
def misbehaving(server: RunningServer) -> Service:
    """Makes the server misbehave."""

    def start(*faults: Fault) -> Misbehaving:
        misbehaving = Misbehaving(*faults)
        server.wrap(misbehaving)
        return misbehaving

    return start


def open_backend(server: RunningServer) -> OpenAIBackend:
    settings = {
        "model": server.parts.models.base,
        "base_url": server.url,
        "job": {"n_epochs": 1, "batch_size": 5, "poll_seconds": 0.02},
    }
    return OpenAIBackend(OpenAISettings.model_validate(settings))


def jobs_at(server: RunningServer) -> list[str]:
    server.wrap(None)
    return [job.id for job in server.client().fine_tuning.jobs.list()]


def test_an_editors_traces_are_not_sent(server: RunningServer, tmp_path: Path) -> None:
    job = a_job(tmp_path)
    content = job.training_file.read_bytes()
    job.training_file.write_bytes(b"\xef\xbb\xbf" + content + b"\n\r\n")
    open_backend(server).fine_tune(job, ignore)
    (file,) = server.client().files.list(purpose="fine-tune")
    assert server.client().files.content(file.id).content == content


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", JOBS, status=500, after=True),
        Fault("POST", JOBS, status=503, after=True),
        Fault("POST", JOBS, status=408, after=True),
        Fault("POST", JOBS, cut=True),
        Fault("POST", JOBS, halved=True),
    ],
    ids=["500", "503", "408", "connection cut", "answer cut off"],
)
def test_a_create_without_an_answer_is_not_sent_again_if_it_made_a_job(
    server: RunningServer, misbehaving: Service, tmp_path: Path, fault: Fault
) -> None:
    seen = misbehaving(fault)
    tuned = open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1
    assert len(jobs_at(server)) == 1
    assert tuned.model.startswith("ft:")


def test_a_create_that_made_no_job_is_sent_again_by_the_next_start_alone(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    seen = misbehaving(Fault("POST", JOBS, status=500))
    with pytest.raises(ServiceError, match="nothing is sent a second time"):
        open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 2
    assert len(jobs_at(server)) == 1


def test_a_server_that_ignores_the_filter_and_keeps_no_metadata_does_not_cause_a_second_job(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    def forget(content: dict[str, Any]) -> None:
        for job in content["data"]:
            job["metadata"] = None

    server.fine_tune()  # somebody else's
    listing = Fault("GET", JOBS, times=9, edit=forget)
    seen = misbehaving(Fault("POST", JOBS, status=500, after=True), listing)
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1
    assert len(jobs_at(server)) == 2


def test_a_clock_that_is_hours_ahead_does_not_cause_a_second_job(
    server: RunningServer, misbehaving: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time = time.time
    monkeypatch.setattr(creation.time, "time", lambda: true_time() + 5 * 3600)
    seen = misbehaving(Fault("POST", JOBS, status=500, after=True))
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1


def test_a_key_that_may_not_see_models_still_gets_what_it_paid_for(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    misbehaving(Fault("GET", "/v1/models", times=99, status=403, code="missing_scope"))
    backend = open_backend(server)
    assert backend.estimate(a_job(tmp_path)).tokens > 0
    assert backend.fine_tune(a_job(tmp_path), ignore).model.startswith("ft:")


def test_a_death_between_the_create_and_its_record_makes_no_second_job(
    server: RunningServer, misbehaving: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = misbehaving()
    with monkeypatch.context() as dying:
        write = IntentFile.write

        def die(self: IntentFile, intent: Intent) -> Intent:
            if intent.job_id is not None:
                raise OSError("killed")
            return write(self, intent)

        dying.setattr(IntentFile, "write", die)
        with pytest.raises(OSError, match="killed"):
            open_backend(server).fine_tune(a_job(tmp_path), ignore)
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1
    assert len(jobs_at(server)) == 1


def test_a_service_that_takes_no_more_jobs_is_said_with_the_alternatives(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    seen = misbehaving(Fault("POST", JOBS, status=403, code="training_not_available"))
    with pytest.raises(ServiceError, match=r"--backend local.*base_url.*kaarel-bet serve"):
        open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1


def test_an_empty_account_is_not_asked_again(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    seen = misbehaving(Fault("POST", JOBS, times=9, status=429, code="insufficient_quota"))
    with pytest.raises(ServiceError, match="no credit left"):
        open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", JOBS, times=2, status=429, code="daily_rate_limit_exceeded"),
        Fault("POST", JOBS, times=2, status=429, headers={"retry-after": "0.02"}),
        Fault("POST", JOBS, times=2, status=400, message="File is still being processed."),
    ],
    ids=["daily cap", "rate limit", "file not ready"],
)
def test_a_create_that_is_put_off_waits_and_says_so(
    server: RunningServer,
    misbehaving: Service,
    tmp_path: Path,
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = misbehaving(fault)
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert seen.count("POST", JOBS) == 3
    assert len(jobs_at(server)) == 1
    assert caplog.text.count("job is not created yet") == 2


def test_an_upload_without_an_answer_leaves_one_file(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    misbehaving(Fault("POST", "/v1/files", status=500, after=True))
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    server.wrap(None)
    files = list(server.client().files.list(purpose="fine-tune"))
    assert len(files) == 1
    # And another run with the same content does not upload it.
    seen = misbehaving()
    other = a_job(tmp_path / "models")
    open_backend(server).fine_tune(other, ignore)
    assert seen.count("POST", "/v1/files") == 0


def test_polling_survives_failures_of_all_kinds(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    misbehaving(
        Fault("GET", f"{JOBS}/", times=20, status=503),
        Fault("GET", f"{JOBS}/", times=5, cut=True),
        Fault("GET", f"{JOBS}/", times=9, halved=True),
        Fault("GET", f"{JOBS}/", times=5, status=429),
    )
    assert open_backend(server).fine_tune(a_job(tmp_path), ignore).trained_tokens > 0


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
def test_an_answer_that_breaks_off_is_asked_for_again(
    server: RunningServer, misbehaving: Service, path: str
) -> None:
    misbehaving(Fault("POST", path, times=4, halved=True))
    backend = open_backend(server)
    assert [result.id for result in backend.score(backend.base_model, [QUERY])] == ["q"]


def test_answers_that_all_break_off_are_paid_for_a_few_times_only(
    server: RunningServer, misbehaving: Service
) -> None:
    seen = misbehaving(Fault("POST", "/v1/chat/completions", times=99, halved=True))
    backend = open_backend(server)
    query = GenerationQuery(id="g", messages=QUERY.messages, max_tokens=2)
    with pytest.raises(ServiceError, match=r"query 'g': the answer breaks off before its end$"):
        list(backend.generate(backend.base_model, [query]))
    assert seen.count("POST", "/v1/chat/completions") == 5


def test_a_whole_answer_of_another_kind_is_an_error_of_the_address_at_once(
    server: RunningServer, misbehaving: Service
) -> None:
    def other(content: dict[str, Any]) -> None:
        content.pop("choices")

    seen = misbehaving(Fault("POST", "/v1/chat/completions", times=99, edit=other))
    backend = open_backend(server)
    query = GenerationQuery(id="g", messages=QUERY.messages, max_tokens=2)
    with pytest.raises(ServiceError, match=r"choices: .*is openai\.base_url right\?"):
        list(backend.generate(backend.base_model, [query]))
    assert seen.count("POST", "/v1/chat/completions") == 1


def test_a_job_that_does_not_start_is_waited_for_with_a_warning(
    server: RunningServer,
    misbehaving: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(job_following, "_STUCK_SECONDS", 0.0)

    def still_queued(content: dict[str, Any]) -> None:
        if content["object"] == "fine_tuning.job":
            content["status"] = "queued"

    seen = misbehaving(Fault("GET", f"{JOBS}/", times=10, edit=still_queued))
    open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert caplog.text.count("for over an hour") == 1
    assert seen.count("POST", JOBS) == 1


def test_a_status_that_is_not_known_is_shown_and_polled_on(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    def pausing(content: dict[str, Any]) -> None:
        if content["object"] == "fine_tuning.job":
            content |= {"status": "pausing", "error": {}}

    misbehaving(Fault("GET", f"{JOBS}/", times=4, edit=pausing))
    notes: list[str | None] = []
    open_backend(server).fine_tune(a_job(tmp_path), lambda now: notes.append(now.note))
    assert sum("pausing" in (note or "") for note in notes) == 1


def test_every_event_is_shown_once(server: RunningServer, tmp_path: Path) -> None:
    notes: list[str] = []
    open_backend(server).fine_tune(a_job(tmp_path), lambda now: notes.append(now.note or ""))
    [job_id] = jobs_at(server)
    events = list(server.client().fine_tuning.jobs.list_events(job_id))
    messages = [f"{job_id}: {event.message}" for event in events if event.type == "message"]
    assert messages
    for message in set(messages):
        assert notes.count(message) == messages.count(message)


def test_a_failed_job_says_why(start_server: StartServer, tmp_path: Path) -> None:
    def fail(*_: object) -> Any:
        raise TrainingError("the loss is not a number")

    server = start_server(train=fail)
    with pytest.raises(
        ServiceError, match=r"failed; .*the loss is not a number.*remove .*job\.json"
    ):
        open_backend(server).fine_tune(a_job(tmp_path), ignore)
    assert len(jobs_at(server)) == 1


def test_a_model_that_is_named_and_known_late_is_waited_for(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    def nameless(content: dict[str, Any]) -> None:
        if content["object"] == "fine_tuning.job":
            content["fine_tuned_model"] = None

    misbehaving(
        Fault("GET", f"{JOBS}/", times=12, edit=nameless),
        Fault("GET", "/v1/models/ft:", times=3, status=404, code="model_not_found"),
        Fault("POST", "/v1/completions", times=2, status=404, code="model_not_found"),
    )
    backend = open_backend(server)
    tuned = backend.fine_tune(a_job(tmp_path), ignore)
    [result] = backend.score(tuned.model, [QUERY])
    assert result.candidates.keys() == {"a", "b"}


def test_a_model_that_the_service_lists_no_more_is_not_waited_for(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    tuned = open_backend(server).fine_tune(a_job(tmp_path), ignore)
    server.client().models.delete(tuned.model)
    seen = misbehaving()
    query = GenerationQuery(id="q", messages=QUERY.messages, max_tokens=1)
    with pytest.raises(ModelError, match=r"the model ft:.* is not at the service"):
        list(open_backend(server).generate(tuned.model, [query]))
    assert seen.count("POST", "/v1/chat/completions") == 1


def test_a_cancelled_job_is_said(
    server: RunningServer, misbehaving: Service, tmp_path: Path
) -> None:
    def cancelled(content: dict[str, Any]) -> None:
        if content["object"] == "fine_tuning.job":
            content["status"] = "cancelled"

    misbehaving(Fault("GET", f"{JOBS}/", times=99, edit=cancelled))
    with pytest.raises(ServiceError, match=r"ftjob.*: cancelled"):
        open_backend(server).fine_tune(a_job(tmp_path), ignore)


def test_the_key_is_in_no_message(
    server: RunningServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    caplog.set_level(logging.DEBUG)
    notes: list[str] = []
    open_backend(server).fine_tune(a_job(tmp_path), lambda now: notes.append(now.note or ""))
    assert "very-secret" not in caplog.text + "".join(notes)
    written = [path.read_text() for path in tmp_path.rglob("*.json*")]
    assert written
    assert not any("very-secret" in text for text in written)
