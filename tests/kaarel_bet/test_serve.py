"""How `kaarel-bet serve` starts, and refuses to; tests/backends/server has what it then does."""

import signal
import socket
from pathlib import Path

import pytest

from backends.local.settings import LocalSettings
from backends.server.settings import ServerSettings
from kaarel_bet import serve
from kaarel_bet.cli import main


@pytest.fixture(autouse=True)
def _this_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kaarel-bet: server.port: can't listen at 127.0.0.1, port {port} (")
    assert error.count("\n") == 1


def test_an_open_address_without_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kaarel-bet: server.host: 0.0.0.0 is open to other machines")
    assert "KAAREL_BET_API_KEY" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "99999"], "server.port: should be less than or equal to 65535"),
        (["--port", "http"], "server.port: should be a valid integer"),
        (["--set", "server.prot=3"], "unknown key 'server.prot'; did you mean 'server.port'?"),
        (["--set", "server.aliases={gpt-4: 3}"], "server.aliases.gpt-4: should be a valid string"),
        (["--set", 'server.aliases={"": self}'], "server.aliases"),
        (["--api-key-file", "none"], "none: the key can't be read from it"),
    ],
)
def test_a_wrong_flag_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_flags_come_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[ServerSettings, LocalSettings, Path | None]] = []
    monkeypatch.setattr(serve, "serve", lambda *settings: served.append(settings))
    Path("config.yaml").write_text(
        "server: {port: 1, organization: lab}\nlocal: {model: a}\n", encoding="utf-8"
    )
    words = ["--port", "2", "--model", "b: c", "--data-dir", "d", "--allow-hub"]
    assert main(["serve", *words, "--api-key-file", "key"]) == 0
    ((server, local, key),) = served
    assert (server.port, server.organization, server.data_dir) == (2, "lab", "d")
    assert server.allow_hub
    assert local.model == "b: c"
    assert key == Path("key")


@pytest.mark.parametrize("name", ["2026", "andmed õ 🦊", "del \x7f", "next line \x85"])
def test_a_directory_may_have_any_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those as well that YAML takes for numbers, does not allow or would change."""
    served: list[ServerSettings] = []
    monkeypatch.setattr(serve, "serve", lambda server, *_: served.append(server))
    assert main(["serve", "--data-dir", name]) == 0
    assert served[0].data_dir == name
