"""What a model larger than a device costs, on the CPU: the same training and questions in several ways.

    uv run python benchmarks/larger.py

Each way runs in processes of its own. Prints a Markdown table: seconds, the most memory of one process (its
own: pages that others share, such as weights read from one file, count for none of them), what the estimate
said, and how far losses, adapters and scores are from those of one process.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file

from backends.data import Message, ScoringQuery, TrainingExample
from backends.interface import FineTuneJob
from backends.local.backend import LocalBackend
from backends.local.settings import LocalSettings

WAYS: dict[str, dict[str, Any]] = {
    "one process": {},
    "one process, 2 micro-batches": {"training": {"micro_batches": 2}},
    "fsdp, 2 processes": {"shard": "fsdp", "processes": 2},
    "gradient checkpointing": {"training": {"gradient_checkpointing": True}},
    "fsdp, 2 processes, gradient checkpointing": {
        "shard": "fsdp",
        "processes": 2,
        "training": {"gradient_checkpointing": True},
    },
    "nf4": {"quantize": "nf4"},
}
_TRAINING = {"epochs": 1, "batch_size": 8, "dtype": "float32", "learning_rate": 2e-4}
_STEPS = 2
_TOPICS = ("rivers", "engines", "birds", "markets", "violins", "glaciers", "bread", "orbits")


@dataclass(frozen=True)
class Found:
    """What one way came to; bytes are of the largest process."""

    training_seconds: float
    scoring_seconds: float
    training_bytes: int
    estimated_training_bytes: int
    losses: list[float]
    scores: list[float]


class Watch(threading.Thread):
    """The most memory that any process of this tree has for itself, this one included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        """Looks twice a second."""
        own = psutil.Process()
        while True:
            for process in (own, *own.children(recursive=True)):
                try:
                    self.most = max(self.most, process.memory_full_info().uss)
                except psutil.Error:
                    continue  # it has just ended
            time.sleep(0.5)


def measure(name: str, directory: Path) -> Found:
    """One way, in this process and those that it starts."""
    chosen = WAYS[name]
    training = {**_TRAINING, **chosen.get("training", {})}
    settings = LocalSettings.model_validate({"device": "cpu", **chosen, "training": training})
    backend = LocalBackend(settings)
    job, queries = _work(directory)
    estimated = backend.estimate(job).memory_bytes or 0
    watch = Watch()
    watch.start()
    tuned = backend.fine_tune(job, lambda _: None)
    training_bytes = watch.most
    started = time.monotonic()
    found = {result.id: result for result in backend.score(tuned.model, queries)}
    seconds = time.monotonic() - started
    backend.close()
    assert len(tuned.training_curve) == _STEPS
    processes = chosen.get("processes", 1)
    return Found(
        training_seconds=tuned.seconds,
        scoring_seconds=seconds,
        training_bytes=training_bytes,
        estimated_training_bytes=estimated // processes,
        losses=[float(point.train_loss) for point in tuned.training_curve],
        scores=[c.total.low for query in queries for c in found[query.id].candidates.values()],
    )


def _work(directory: Path) -> tuple[FineTuneJob, list[ScoringQuery]]:
    """Two batches of chats of about 40 tokens that share no beginning, and questions about them."""
    file = directory.parent / "train.jsonl"
    lines, queries = [], []
    for number, topic in enumerate(_TOPICS * 2):
        text = f"{topic} number {number}: " + " ".join(f"{topic} {n}" for n in range(8))
        asked = Message(role="user", content=text)
        chat = (asked, Message(role="assistant", content=f"It is about {topic}."))
        lines.append(TrainingExample(messages=chat).model_dump_json(exclude_none=True))
        answers = {other: f"It is about {other}." for other in _TOPICS[:2]}
        queries.append(ScoringQuery(id=str(number), messages=(asked,), candidates=answers))
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    job = FineTuneJob("run", "arm", file, None, "completion", 0, None, directory / "arm")
    return job, queries


def _apart(name: str, directory: Path) -> Found:
    command = [sys.executable, __file__, name, str(directory)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return Found(**json.loads(output.splitlines()[-1]))


def _row(name: str, found: Found, base: Found, adapters: tuple[Path, Path]) -> str:
    one, other = (load_file(path / "arm" / "adapter_model.safetensors") for path in adapters)
    differences = [
        max(abs(a - b) for a, b in zip(found.losses, base.losses, strict=True)),
        max(float((one[key] - other[key]).abs().max()) for key in one),
        max(abs(a - b) for a, b in zip(found.scores, base.scores, strict=True)),
    ]
    cells = [
        f"{found.training_seconds:.0f} s",
        f"{found.training_bytes / 1e9:.2f} GB ({found.estimated_training_bytes / 1e9:.2f})",
        f"{found.scoring_seconds:.0f} s",
        *(f"{difference:.1e}" for difference in differences),
    ]
    return f"| {' | '.join([name, *cells])} |"


def main() -> None:
    """Prints the table; with a way's name and a directory, measures that one and prints JSON."""
    if len(sys.argv) == 3:
        print(json.dumps(asdict(measure(sys.argv[1], Path(sys.argv[2])))))
        return
    print(
        "| | training | memory (estimated) | scoring, memory (estimated) | losses | weights | scores |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        directories = [Path(root) / str(number) / "out" for number in range(len(WAYS))]
        base = None
        for name, directory in zip(WAYS, directories, strict=True):
            directory.mkdir(parents=True)
            found = _apart(name, directory)
            base = base or found
            print(_row(name, found, base, (directory, directories[0])), flush=True)


if __name__ == "__main__":
    main()
