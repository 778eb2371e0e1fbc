"""What somebody has who installs the wheel with pip, without this repository, uv or a compiler: --wheel."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """A virtual environment with pip alone, which takes gigabytes once it is filled."""
    environment = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    yield environment
    shutil.rmtree(environment)


@pytest.mark.wheel
def test_the_wheel_installs_without_a_compiler_and_runs_the_default_job(
    bare: Path, tmp_path: Path
) -> None:
    dist, empty = tmp_path / "dist", tmp_path / "empty"
    empty.mkdir()
    python = str(bare / "bin/python")
    subprocess.run(
        [python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", dist, _REPOSITORY], check=True
    )
    (wheel,) = dist.iterdir()
    # Neither a compiler, nor uv, nor git.
    environment = os.environ | {"PATH": str(bare / "bin"), "CC": "none", "CXX": "none"}
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True, env=environment)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"],
        check=True,
        env=environment,
        capture_output=True,
    )
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "kaarel-bet" in installed
    assert not installed & {"llm", "llama-cpp-python", "llama_cpp_python"}

    environment |= {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/.cache")}
    done = subprocess.run(
        [bare / "bin/kaarel-bet", "run"], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    run = empty / done.stdout.splitlines()[-1]
    assert (run / "report.html").exists()
    assert json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    assert "getting the embedded model from the package index, once" in done.stderr
    assert "Warning" not in done.stderr
    print(done.stderr)
