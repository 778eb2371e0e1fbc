"""A sweep of 24 tiny trainings, as users run it on one executor or another."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.kaarel_bet.test_sweep import SWEPT

REPOSITORY = Path(__file__).parents[3]
BET = SWEPT.replace("[1, 2]", "[1, 2, 3, 4]").replace(
    "confirm: {of: words, hold_out: 0.5}", "correct: bonferroni"
)
N_SETTINGS, N_TRAININGS = 8, 24


def start(
    directory: Path, model: Path, *settings: str, python: str = sys.executable
) -> "subprocess.Popen[str]":
    """Begins the sweep in a directory."""
    directory.mkdir(exist_ok=True)
    (directory / "swept.yaml").write_text(BET, encoding="utf-8")
    own = (f"local.model={model}", "local.device=cpu", *settings)
    sets = [word for setting in own for word in ("--set", setting)]
    return subprocess.Popen(
        [python, "-m", "kaarel_bet", "sweep", "swept.yaml", *sets],
        cwd=directory,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def models(directory: Path) -> list[Path]:
    """The records of all that is trained."""
    return sorted(directory.glob("results/*/models/*.json"))


def table(out: str) -> list[list[str]]:
    """The sweep's rows without the names of their runs."""
    rows = [re.split(r"  +", line)[:-1] for line in out.strip().splitlines()[:N_SETTINGS]]
    assert len(rows) == N_SETTINGS
    assert all(len(row) == 4 for row in rows), rows
    return rows
