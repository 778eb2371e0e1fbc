"""What the default job's settings were chosen by: how well TRAIN is learned, and how long it takes.

    uv run python benchmarks/defaults.py

Runs the bet's steps up to `test` once for every variant and prints a Markdown table.
"""

import subprocess
import sys
import tempfile
import time
from math import exp
from pathlib import Path

from kaarel_bet.run_dir import RunDirectory

VARIANTS: dict[str, tuple[str, ...]] = {
    "the defaults": (),
    "another seed": ("seed=1",),
    "8 epochs": ("local.training.epochs=8",),
    "16 epochs": ("local.training.epochs=16",),
    "learning rate 1e-3": ("local.training.learning_rate=1e-3",),
    "learning rate 3e-3": ("local.training.learning_rate=3e-3",),
    "rank 8": ("local.lora.rank=8", "local.lora.alpha=16.0"),
    "float32": ("local.training.dtype=float32",),
}


def measure(settings: tuple[str, ...]) -> list[str]:
    """P(country | TRAIN) and training seconds of both arms, and the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run"
        command = [sys.executable, "-m", "kaarel_bet", "test", "--run-dir", str(path)]
        sets = [word for setting in settings for word in ("--set", setting)]
        started = time.monotonic()
        subprocess.run([*command, *sets], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        run = RunDirectory(path)
        cells = []
        asked = {(one.arm.arm, one.evaluation.question): one for one in run.answers().asked}
        for arm, question in (
            ("conditional", "cells.train_told"),
            ("control", "cells.train_untold"),
        ):
            results = asked[arm, question].results
            learned = [exp(result.candidates["country"].total.low) for result in results]
            cells += [f"{sum(learned) / len(learned):.3f}", f"{run.model(arm).seconds:.0f} s"]
        return [*cells, f"{seconds:.0f} s"]


def main() -> None:
    """Prints the table."""
    print(
        "| variant | conditional P(country) | trained in | control P(country) | trained in | all |"
    )
    print("|---|---|---|---|---|---|")
    for name, settings in VARIANTS.items():
        print(f"| {' | '.join([name, *measure(settings)])} |", flush=True)


if __name__ == "__main__":
    main()
