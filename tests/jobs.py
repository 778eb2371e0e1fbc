"""Fine-tunes as backends are given them."""

from pathlib import Path
from typing import Any

from backends.interface import FineTuneJob, Progress
from tests.server import training_file


def a_job(directory: Path, content: bytes | None = None, **more: Any) -> FineTuneJob:
    """One with this training file, or ten examples: supervised, from the base, if nothing else is said."""
    directory.mkdir(exist_ok=True)
    file = directory / "train.jsonl"
    file.write_bytes(training_file(10) if content is None else content)
    usual: dict[str, Any] = {
        "run_id": "run",
        "name": "arm",
        "training_file": file,
        "validation_file": None,
        "loss_on": "completion",
        "seed": 0,
        "starts_from": None,
        "output": directory / "models" / "arm",
    }
    return FineTuneJob(**(usual | more))


def ignore(_: Progress) -> None:
    """Nobody watches."""
