"""What a page in a browser on this machine may not do."""

import pytest

from tests.server import RunningServer, StartServer


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.2", "http://["])
def test_pages_of_other_sites_are_refused(server: RunningServer, origin: str) -> None:
    with server.raw() as http:
        answer = http.post(
            "/v1/files",
            headers={"origin": origin},
            files={"file": ("a.jsonl", b"{}")},
            data={"purpose": "fine-tune"},
        )
    assert answer.status_code == 403
    assert list(server.client().files.list()) == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1", ""])
def test_a_name_that_leads_here_is_not_answered_without_a_key(
    server: RunningServer, host: str
) -> None:
    with server.raw() as http:
        assert http.get("/v1/models", headers={"host": host}).status_code == 403


def test_this_machines_own_names_are_answered(server: RunningServer) -> None:
    port = server.address.rsplit(":", 1)[1]
    with server.raw() as http:
        for host in ("localhost", f"127.0.0.1:{port}", f"[::1]:{port}"):
            headers = {"host": host, "origin": f"http://{host}"}
            assert http.get("/v1/models", headers=headers).status_code == 200


def test_with_a_key_any_name_is_answered(start_server: StartServer) -> None:
    with start_server(api_key="k").raw() as http:
        assert http.get("/v1/models", headers={"host": "gpu.example"}).status_code == 200
