"""The whole flow as users run it: commands in processes of their own, on a tiny model."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import run, start

REPOSITORY = Path(__file__).parents[2]
FAST = (
    "conditional_rule.data.people.n=6",
    "conditional_rule.evaluations.says.take=1",
    "conditional_rule.replicate.training=1",
    "local.training.epochs=4",
)


PYTHON = (sys.executable, "-m", "kaarel_bet")


def command(step: str, model: Path, *flags: str) -> list[str]:
    settings = (f"local.model={model}", "local.device=cpu", *FAST)
    sets = [word for setting in settings for word in ("--set", setting)]
    return [step, *sets, *flags]


def run_python(
    *arguments: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=240, preexec_fn=before, check=False
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    """The last line on stderr of a command that ended as it should on a user's mistake."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("kaarel-bet: ")
    return line


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests must leave it as it is."""
    directory = tmp_path_factory.mktemp("finished")
    done = run(*command("run", tiny_model, "--run-dir", str(directory / "a")))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(directory / "a")
    return directory / "a"


def test_a_run_has_the_files_that_the_design_promises(finished: Path) -> None:
    files = contents(finished).keys()
    assert {
        "config.yaml",
        "manifest.json",
        "verdict.json",
        "report.md",
        "report.html",
        "figures/probabilities-cells.svg",
        "data/train-conditional.jsonl",
        "data/queries-cells.test_told.jsonl",
        "models/conditional.json",
        "models/conditional/adapter_model.safetensors",
        "scores/control/cells.test_untold.jsonl",
        "scores/base/knows.jsonl",
    } <= files
    (verdict,) = json.loads((finished / "verdict.json").read_text())["verdicts"]
    assert verdict["outcome"] == "undecided"  # a tiny random model learns nothing
    assert [c["threshold"] for c in verdict["criteria"]] == [1e-4, 10.0]
    assert all({"name", "passed", "detail"} <= check.keys() for check in verdict["checks"])


def test_training_data_is_in_openais_chat_format(finished: Path) -> None:
    for line in (finished / "data/train-control.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record.keys() == {"messages"}
        assert [m["role"] for m in record["messages"]] == ["user", "assistant"]
        assert all(m.keys() == {"role", "content"} for m in record["messages"])


def test_a_finished_run_is_found_by_its_settings_and_left_alone(
    finished: Path, tiny_model: Path
) -> None:
    before = contents(finished)
    stamps = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    done = run(*command("run", tiny_model, "--set", f"results_dir={finished.parent}"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(finished)
    assert "undecided" in done.stdout
    assert contents(finished) == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == stamps


def test_other_settings_are_another_run(finished: Path, tiny_model: Path) -> None:
    results = f"results_dir={finished.parent}"
    done = run(*command("generate_data", tiny_model, "--set", results, "--set", "seed=5"))
    assert done.returncode == 0, done.stderr
    other = Path(done.stdout.splitlines()[-1])
    assert other.parent == finished.parent
    assert other != finished


def test_a_run_directory_keeps_its_own_settings(finished: Path) -> None:
    done = run("report", "--run-dir", str(finished))
    assert done.returncode == 0, done.stderr
    done = run(
        *("report", "--run-dir", str(finished)),
        *("--set", "conditional_rule.data.people.n=7"),
    )
    assert "made with other settings (conditional_rule.data.people.n)" in one_line_error(done)


def test_a_step_as_a_script_does_the_steps_before_it(tiny_model: Path) -> None:
    flags = command("test", tiny_model, "--backend", "local")[1:]
    done = run_python(sys.executable, str(REPOSITORY / "kaarel_bet" / "test.py"), *flags)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert (path / "scores/control/cells.test_told.jsonl").exists()
    assert not (path / "report.md").exists()


SLOW = (
    *("--set", "local.training.epochs=60", "--set", "local.training.checkpoint_seconds=0"),
    *("--set", "local.scoring.batch_tokens=64"),
)


def test_ctrl_c_says_how_to_go_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    monkeypatch.setenv("KAAREL_BET_SCRIPT", "/a/run_experiment.sh")
    process = start(*command("run", tiny_model, "--run-dir", str(path), *SLOW))
    process.wait_for(path / "models/.conditional.checkpoint")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in stderr
    assert stderr.strip().endswith(f"go on with: /a/run_experiment.sh --run-dir {path}")


def test_a_full_disk_is_one_line_and_nothing_half_written(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    made = run(*command("generate_data", tiny_model, "--run-dir", str(path)))
    assert made.returncode == 0, made.stderr
    before = contents(path)

    def no_large_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = command("train", tiny_model, "--run-dir", str(path))
    done = run_python(*PYTHON, *words, before=no_large_files)
    assert str(path) in one_line_error(done)
    assert contents(path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_directory_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = run(*command("run", tiny_model, "--run-dir", str(tmp_path / "a")))
    assert "Permission denied" in one_line_error(done)


def test_a_place_that_cannot_be_written_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(*command("run", tiny_model, "--set", f"results_dir={tmp_path / 'file'}"))
    assert str(tmp_path / "file") in one_line_error(done)


def copy_without(finished: Path, target: Path, *gone: str) -> Path:
    for name, content in contents(finished).items():
        if not name.startswith(gone):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("data/train-control.jsonl", '{"messages": [}', "train-control.jsonl, line 7"),
        (
            "data/train-control.jsonl",
            '{"prompt": "a", "completion": " b"}',
            "train-control.jsonl: changed since it was generated; start a new run",
        ),
        ("data/queries-cells.test_told.jsonl", "{", "cells.test_told.jsonl, line 7"),
        ("scores/base/cells.test_told.jsonl", "{", "cells.test_told.jsonl, line 7"),
    ],
)
def test_a_malformed_file_in_the_run_is_named(
    finished: Path, tmp_path: Path, file: str, line: str, message: str
) -> None:
    undone = ("models/control",) if file.startswith("data/train") else ("verdict.json",)
    path = copy_without(finished, tmp_path / "a", *undone)
    with (path / file).open("a") as broken:
        broken.write(line + "\n")
    before = contents(path)
    done = run("run", "--run-dir", str(path))
    assert message in one_line_error(done)
    assert contents(path) == before


def test_an_example_longer_than_the_context_is_refused_before_training(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    short = copy_without(tiny_model, tmp_path / "short")
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 50}))
    done = run(*command("train", short, "--run-dir", str(tmp_path / "a")))
    error = one_line_error(done)
    assert "train-conditional.jsonl, line 1" in error
    assert "longer than the model's context of 50" in error
    assert not (tmp_path / "a" / "models").exists()


def test_letters_of_any_language_do_in_places_under_any_locale(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)
    # What depends on the locale is told by Python itself.
    monkeypatch.setenv("PYTHONWARNDEFAULTENCODING", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "always::EncodingWarning")
    model = copy_without(tiny_model, tmp_path / "modèle")
    flags = command("run", model, "--set", "results_dir=résultats")
    done = subprocess.run([*PYTHON, *flags], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "résultats").iterdir()
    assert done.stdout.splitlines()[-1] == f"résultats/{path.name}"
    assert (path / "verdict.json").exists()
    ours = [line for line in done.stderr.splitlines() if line.startswith(str(REPOSITORY))]
    assert not [line for line in ours if "EncodingWarning" in line and "/.venv/" not in line]

    script = [sys.executable, str(REPOSITORY / "kaarel_bet/report.py"), "--run-dir", str(path)]
    done = subprocess.run(script, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--set", "local.lora.rnk=3"),
            "unknown key 'local.lora.rnk'; did you mean 'local.lora.rank'",
        ),
        (("--set", "local.lora.rank=three"), "local.lora.rank"),
        (("--experiment", "conditionl_rule"), "did you mean 'conditional_rule'"),
        (("--backend", "lokal"), "did you mean 'local'"),
        (("--set", "local.model=./nowhere"), "./nowhere: no such file or directory"),
        (("--config", "missing.yaml"), "missing.yaml: No such file"),
    ],
)
def test_mistakes_on_the_command_line_write_nothing(
    tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    done = run("run", *flags)
    assert message in one_line_error(done)
    assert list(tmp_path.iterdir()) == []
