"""The command line in this process; test_flow.py runs it as users do."""

import os
import shlex
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import kaarel_bet.__main__
from kaarel_bet import cli
from kaarel_bet.bet.schema_file import SCHEMA
from kaarel_bet.bet.source import TASKS, load_bet, shipped
from kaarel_bet.cli import main
from kaarel_bet.new import SHAPES
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
        (
            "config.yaml",
            b"seed: &a [*a]\n",
            "config.yaml, line 1, column 7: a value contains itself",
        ),
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
    frozen = load_settings({"seed": 5}).frozen()
    RunDirectory(Path("killed")).write_settings(frozen)
    assert main(["run", "--run-dir", "killed"]) == 0
    assert opened[0].settings.frozen() == frozen


def test_a_bet_is_named_with_or_without_the_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[Session] = []
    monkeypatch.setitem(cli._STEPS, "train", (opened.append, ""))
    assert main(["train", "memo_trap"]) == 0
    assert main(["train", "--experiment", "memo_trap"]) == 0
    assert [session.settings.bet.name for session in opened] == ["memo_trap"] * 2
    capsys.readouterr()
    assert main(["train", "memo_trap", "--experiment", "neqa"]) == 2
    assert capsys.readouterr().err == "kaarel-bet: memo_trap and --experiment neqa: name one bet\n"


def test_the_shipped_bets_are_listed_with_their_questions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bets"]) == 0
    *bets, _, tasks = capsys.readouterr().out.splitlines()
    assert bets[0::2] == [name for name in shipped() if name not in TASKS]
    assert all(line.startswith("    ") and "?" in line for line in bets[1::2])
    assert tasks.split() == [f"{task}," for task in TASKS[:-1]] + [TASKS[-1]]


# --- a bet of one's own ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_bet_can_be_run_as_it_stands(
    shape: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[Session] = []
    monkeypatch.setitem(cli._STEPS, "run", (opened.append, ""))
    Path("bets").mkdir()
    assert main(["new", "bets/my-own 2.yaml", "--shape", shape]) == 0
    assert capsys.readouterr().out == "bets/my-own 2.yaml\n"
    text = Path("bets/my-own 2.yaml").read_text(encoding="utf-8")
    assert "kaarel-bet check bets/my-own 2.yaml " in text
    first, _, _ = text.partition("\n")
    assert Path(first.removeprefix("# yaml-language-server: $schema=")).samefile(SCHEMA)
    assert main(["run", "bets/my-own 2.yaml"]) == 0
    (session,) = opened
    assert session.settings.bet.name == "my_own_2"
    design = session.experiment.design(lambda text: tuple(text.encode()))
    assert all(
        len(arm.training.examples) >= 10 for arm in design.arms if arm.training
    )  # as services want


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("there.yaml", "there.yaml: is there already"),
        ("a.txt", "a.txt: a bet's file ends in .yaml"),
    ],
)
def test_a_file_that_is_there_or_is_no_bets_is_refused(
    capsys: pytest.CaptureFixture[str], file: str, message: str
) -> None:
    Path("there.yaml").write_text("thesis", encoding="utf-8")
    assert main(["new", file]) == 2
    assert capsys.readouterr().err == f"kaarel-bet: {message}\n"
    assert Path("there.yaml").read_text(encoding="utf-8") == "thesis"


@pytest.mark.parametrize(
    ("stem", "name"), [("2nd", "_2nd"), ("class", "class_bet"), ("local", "local_bet")]
)
def test_a_new_bet_has_a_name_that_expressions_and_settings_can_have(stem: str, name: str) -> None:
    assert main(["new", f"{stem}.yaml"]) == 0
    assert load_bet(f"{stem}.yaml").bet.name == name


# --- notes -----------------------------------------------------------------------------------


def test_a_note_is_kept_with_the_run_and_has_the_report_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[list[str]] = []
    monkeypatch.setattr(
        cli, "report", lambda session: reported.append([note.text for note in session.run.notes()])
    )
    run = RunDirectory(Path("results/a"))
    run.write_settings(load_settings({}).frozen())
    for file in ("manifest.json", "verdict.json", "report.md", "report.html"):
        (run.path / file).write_text("{}", encoding="utf-8")
    assert main(["note", "N/A: the names were known", "--run-dir", str(run.path)]) == 0
    assert not run.has_report
    assert reported == [["N/A: the names were known"]]
    assert main(["note", "Später: doch nicht"]) == 0  # the latest run with these settings
    assert [note.text for note in run.notes()] == [
        "N/A: the names were known",
        "Später: doch nicht",
    ]
    assert len(reported) == 1  # there was no report any more


def test_there_is_nothing_to_note_about_a_run_that_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["note", "why"]) == 2
    assert "no such run to note anything about; --run-dir names one" in capsys.readouterr().err
    assert not Path("results").exists()


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


def test_letters_that_the_terminal_lacks_are_written_by_their_numbers() -> None:
    Path("résultats").mkdir()
    command = [sys.executable, "-m", "kaarel_bet", "new", "résultats/Łódź.yaml"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("cp1252").startswith("résultats/\\u0141ód\\u017a.yaml")


def test_ctrl_c_while_it_is_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "kaarel_bet.cli", Interrupted("kaarel_bet.cli"))
    assert kaarel_bet.__main__.main() == 2
    assert capsys.readouterr().err == "kaarel-bet: stopped\n"


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
