import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import kaarel_bet

# `python kaarel_bet/test.py` puts kaarel_bet/ itself first on the path, so a module there hides any
# top-level module of its name from every library. `test` is a name that users type.
_EXEMPT = {"test", "__init__", "__main__", "__pycache__"}
_FOLDER = Path(str(kaarel_bet.__file__)).parent
_OURS = {path.stem for path in _FOLDER.iterdir() if path.is_dir() or path.suffix == ".py"} - _EXEMPT


def test_there_are_modules_to_look_at() -> None:
    assert {"settings", "run_dir", "train", "report", "experiments", "rendering"} <= _OURS


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert not _OURS & sys.stdlib_module_names


def test_no_module_hides_an_installed_package() -> None:
    assert not _OURS & packages_distributions().keys()


def test_files_in_the_working_directory_hide_nothing_of_the_command(tmp_path: Path) -> None:
    for name in ("backends", "numpy", "yaml", "logging"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('of the user')", encoding="utf-8")
    command = [sys.executable, "-m", "kaarel_bet", "bets"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "conditional_rule" in done.stdout


def test_the_packages_guarded_against_are_seen() -> None:
    assert {"numpy", "torch", "tokenizers"} <= packages_distributions().keys()
