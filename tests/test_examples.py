"""The scripts in examples/, run as they stand."""

import os
import re
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
    _, answers = done.stdout.split(" succeeded ft:")
    # What a model of random weights answers may have lines of its own.
    found = re.findall(r"^(\w+): .*?\(log-probability -", answers, re.MULTILINE | re.DOTALL)
    assert found == ["Alice", "Bob", "Carla", "David"]


def test_examples_are_short_and_need_nothing_but_the_openai_package() -> None:
    lines = (EXAMPLES / "fine_tune.py").read_text(encoding="utf-8").splitlines()
    imported = {
        line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))
    }
    assert len(lines) < 40
    assert imported - set(sys.stdlib_module_names) == {"openai"}
