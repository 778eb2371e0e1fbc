"""The scripts in examples/, run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

from tests.server import RunningServer

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_fine_tune_trains_a_model_and_shows_its_answers(server: RunningServer) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "fine_tune.py")],
        env=os.environ | {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "any"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert " succeeded ft:" in lines[-5]
    assert [line.split(":")[0] for line in lines[-4:]] == ["Alice", "Bob", "Carla", "David"]
    assert all("(log-probability -" in line for line in lines[-4:])


def test_examples_are_short_and_need_nothing_but_the_openai_package() -> None:
    lines = (EXAMPLES / "fine_tune.py").read_text(encoding="utf-8").splitlines()
    imported = {
        line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))
    }
    assert len(lines) < 40
    assert imported - set(sys.stdlib_module_names) == {"openai"}
