import shutil
import subprocess
from pathlib import Path

import pytest

from kaarel_bet import environment

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(*arguments: str) -> None:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module's file, in a repository that does not track it."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)  # a commit hook has them
    file = Path("package/environment.py").absolute()
    file.parent.mkdir()
    file.write_text("1\n")
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(file))
    return file


def test_the_commit_of_somebody_elses_repository_is_not_ours(module: Path) -> None:
    assert module.exists()
    assert environment.git_commit() is None


def test_the_commit_of_our_own_repository_with_what_was_changed(module: Path) -> None:
    git("add", ".")
    git("commit", "-m", "second")
    commit = environment.git_commit()
    assert commit is not None
    assert len(commit) == 40
    module.write_text("2\n", encoding="utf-8")
    assert environment.git_commit() == f"{commit}+changes"


def test_without_a_repository_there_is_no_commit(module: Path) -> None:
    shutil.rmtree(".git")
    assert environment.git_commit() is None
