import logging
import time
from pathlib import Path

import openai
import pytest

from backends.errors import SettingsError
from backends.server.auth import check_exposure, read_key
from tests.server import RunningServer, StartServer


def test_with_a_key_only_health_is_open(start_server: StartServer) -> None:
    server = start_server(api_key="the-secret")
    assert server.client().models.list().data
    with server.raw() as http:
        http.headers.pop("Authorization")
        assert http.get("/health").status_code == 200
        for path in (
            "/version",
            "/metrics",
            "/v1/models",
            "/v1/files",
            "/nowhere",
            "/openapi.json",
        ):
            assert http.get(path).status_code == 401
    for wrong in ("the-secre", "the-secret2", "ключ".encode().decode("latin-1")):
        with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
            server.client(key=wrong).models.list()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_hosts_take_a_key(host: str) -> None:
    with pytest.raises(SettingsError, match="KAAREL_BET_API_KEY"):
        check_exposure(host, None)
    check_exposure(host, "key")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_no_key(host: str) -> None:
    check_exposure(host, None)


def test_the_key_comes_from_a_file_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key(None) is None
    monkeypatch.setenv("KAAREL_BET_API_KEY", " of the environment ")
    assert read_key(None) == "of the environment"
    Path("key").write_text("of the file\n", encoding="utf-8")
    assert read_key(Path("key")) == "of the file"
    Path("key").write_text("\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="no key in it"):
        read_key(Path("key"))
    with pytest.raises(SettingsError, match="none: the key can't be read"):
        read_key(Path("none"))


def test_every_request_is_one_line_without_key_or_contents(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="backends.server.requests")
    server = start_server(api_key="the-secret")
    server.upload(b'{"private": 1}', name="private-name.jsonl")
    answer = server.raw().get("/v1/files/a%0Ab", headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    deadline = time.monotonic() + 10  # a line is written once its answer is gone
    while len(caplog.records) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("POST /v1/files 200 ")
    assert lines[1].startswith("GET /v1/files/a\\nb 404 ")
    assert lines[1].endswith(" ms mine-7")
    assert "secret" not in caplog.text
    assert "private" not in caplog.text


def test_metrics_count_requests_by_route_and_jobs_by_status(server: RunningServer) -> None:
    server.fine_tune()
    server.raw().get("/v1/files/one")
    server.raw().get("/v1/files/two")
    text = server.raw().get("/metrics").text
    counted = 'kaarel_bet_requests_total{method="GET",route="/v1/files/{file_id}",status="404"} 2.0'
    assert counted in text
    assert 'kaarel_bet_jobs{status="succeeded"} 1.0' in text
    assert "kaarel_bet_queue_length 0.0" in text


def test_errors_have_the_services_shape(server: RunningServer) -> None:
    http = server.raw()
    answers = [
        http.get("/v1/nowhere"),
        http.delete("/v1/models"),
        http.post("/v1/fine_tuning/jobs", content=b"{"),
        http.post("/v1/fine_tuning/jobs", json={}),
        http.post("/v1/files", content=b"no form"),
        http.post("/v1/files", headers={"content-type": "multipart/form-data"}, content=b"x"),
        http.get("/v1/files?limit=0"),
    ]
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"].startswith("req_")


def test_a_failure_inside_is_a_500_that_says_nothing(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.parts.models, "tuned_models", lambda: 1 / 0)
    with pytest.raises(openai.InternalServerError) as caught:
        server.client().models.list()
    assert "ZeroDivision" not in str(caught.value)
    assert caught.value.request_id
