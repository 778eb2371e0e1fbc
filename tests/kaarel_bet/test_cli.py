"""The command line in this process; test_flow.py runs it as users do."""

import signal
from pathlib import Path

import pytest

from kaarel_bet.cli import main


@pytest.fixture(autouse=True)
def _this_process_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (".env", b"NAME=caf\xe9\n", ".env: not UTF-8 text (byte 8)"),
        ("config.yaml", b"seed: &a [*a]\n", "config.yaml: file: a value contains itself"),
    ],
)
def test_a_broken_file_is_one_line(
    capsys: pytest.CaptureFixture[str], file: str, content: bytes, message: str
) -> None:
    Path(file).write_bytes(content)
    assert main(["run"]) == 2
    assert capsys.readouterr().err == f"kaarel-bet: {message}\n"
