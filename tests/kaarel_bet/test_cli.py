"""The command line in this process; test_flow.py runs it as users do."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kaarel_bet import cli
from kaarel_bet.cli import main
from kaarel_bet.run_dir import RunDirectory
from kaarel_bet.session import Session
from kaarel_bet.settings import load_settings

_REPOSITORY = Path(__file__).parents[2]
_STARTED_BY = ("KAAREL_BET_SCRIPT", "UV_RUN_RECURSION_DEPTH")


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


@pytest.mark.parametrize(
    "content",
    [
        (_REPOSITORY / "config.yaml").read_text(encoding="utf-8"),
        "seed: 3\n",
        "name: another tool's\n",
        "local: {lora: {rank: 0}}\n",
    ],
)
@pytest.mark.parametrize("run_dir", [".", "project"])
def test_a_directory_with_somebodys_own_settings_is_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str, run_dir: str
) -> None:
    monkeypatch.setitem(cli._STEPS, "run", (lambda _: pytest.fail("it was taken for one"), ""))
    config = Path(run_dir) / "config.yaml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(content, encoding="utf-8")
    assert main(["run", "--run-dir", run_dir]) == 2
    assert capsys.readouterr().err.startswith(f"kaarel-bet: {run_dir}: not a run directory (")
    assert list(config.parent.iterdir()) == [config]
    assert config.read_text(encoding="utf-8") == content


def test_a_run_that_was_killed_before_its_data_was_complete_is_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Session] = []
    monkeypatch.setitem(cli._STEPS, "run", (opened.append, ""))
    frozen = load_settings({"seed": 5}, where="test").frozen()
    RunDirectory(Path("killed")).write_settings(frozen)
    assert main(["run", "--run-dir", "killed"]) == 0
    assert opened[0].settings.frozen() == frozen


def how_to_go_on(monkeypatch: pytest.MonkeyPatch, **started_by: str) -> list[str]:
    """The words of the command that an interrupted run with a space in its name is taken up with."""

    def interrupted(session: Session) -> None:
        session.run.write_settings(session.settings.frozen())
        raise KeyboardInterrupt

    for name in _STARTED_BY:
        monkeypatch.delenv(name, raising=False)
    for name, value in started_by.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(cli._STEPS, "run", (interrupted, ""))
    said: list[str] = []
    monkeypatch.setattr(cli, "_fail", lambda _console, message: said.append(message))
    main(["run", "--run-dir", "my results/a"])
    return shlex.split(said[0].removeprefix("stopped; go on with: "))


@pytest.mark.parametrize(
    ("started_by", "command"),
    [
        ({"KAAREL_BET_SCRIPT": "/my code/run.sh", "UV_RUN_RECURSION_DEPTH": "1"}, "script"),
        ({"UV_RUN_RECURSION_DEPTH": "1"}, "uv"),
        ({}, "python"),
    ],
)
def test_an_interrupted_run_says_a_command_that_its_user_has(
    monkeypatch: pytest.MonkeyPatch, started_by: dict[str, str], command: str
) -> None:
    commands = {
        "script": ["/my code/run.sh"],
        "uv": ["uv", "run", "kaarel-bet", "run"],
        "python": [sys.executable, "-m", "kaarel_bet", "run"],
    }
    said = how_to_go_on(monkeypatch, **started_by)
    assert said == [*commands[command], "--run-dir", "my results/a"]


def test_the_script_says_where_it_is(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    (clone / "scripts").mkdir(parents=True)
    script = clone / "run_experiment.sh"
    script.write_bytes((_REPOSITORY / "run_experiment.sh").read_bytes())
    uv = clone / "scripts/uv"
    uv.write_text('#!/bin/sh\nprintf %s "$KAAREL_BET_SCRIPT"\n')
    uv.chmod(0o755)
    said = subprocess.run(["bash", script], cwd="/", capture_output=True, text=True, check=True)
    assert said.stdout == str(script)
    assert os.access(_REPOSITORY / "run_experiment.sh", os.X_OK)
