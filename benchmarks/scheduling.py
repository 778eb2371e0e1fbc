"""What an executor itself costs: thousands of tasks of no work, and a thousand trainings on 8 to 512 GPUs.

    uv run python benchmarks/scheduling.py none [--executor local|ray|slurm] [--tasks N] [--megabytes N]
    uv run python benchmarks/scheduling.py simulated --seconds A_TRAINING --driver-seconds A_TASK

`none` measures: seconds a task, and the memory of the driver, of tasks whose backend has nothing to do, but
maybe models of so many megabytes to give back. `simulated` runs the loop that gives tasks to executors
(kaarel_bet/executors/carrying_out.py) on an executor of so many devices whose clock jumps from end to end,
with the times given.
"""

import argparse
import heapq
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

from memory import peak_bytes
from rich.console import Console
from typing_extensions import override

from backends.data import GenerationQuery, GenerationResult, TunedModel
from backends.interface import Backend, Capabilities, FineTuneJob, Place, Progress
from kaarel_bet.executors import LOCAL, SETTINGS, open_executor
from kaarel_bet.executors.carrying_out import Work, carry_out
from kaarel_bet.executors.interface import Executor
from kaarel_bet.executors.local import LocalExecutor
from kaarel_bet.executors.tasks import Questions, Task
from kaarel_bet.progress import Report


class NothingToDo:
    """As much of a backend as is used: it answers at once, and trains at once to weights of a size."""

    capabilities = Capabilities(
        prompt_loss=True,
        exact_scores=True,
        starts_from=True,
        search=False,
        costs_money=False,
        elsewhere=True,
    )

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes

    @property
    def base_model(self) -> str:
        return "none"

    def identity(self, job: FineTuneJob) -> str:
        return job.name

    def fine_tune(
        self, job: FineTuneJob, report: Callable[[Progress], None], place: Place | None = None
    ) -> TunedModel:
        job.output.mkdir(parents=True)
        weights = random.randbytes(1_000_000) * self._megabytes
        (job.output / "adapter_model.safetensors").write_bytes(weights)
        return TunedModel(
            model=str(job.output),
            base_model="none",
            hyperparameters={},
            n_examples=0,
            trained_tokens=0,
            seconds=0.0,
            cost_usd=None,
            training_curve=(),
        )

    def asked_as(self, model: str) -> str | None:
        return None

    def generate(
        self, model: str, queries: Sequence[GenerationQuery]
    ) -> Iterator[GenerationResult]:
        for query in queries:
            yield GenerationResult(id=query.id, prompt="", texts=("",))


class Nothing(Work):
    """One question, or one training."""

    after = None

    def __init__(self, number: int, megabytes: int, folder: Path) -> None:
        self.title = f"nothing {number}"
        self.came = 0
        self._backend = cast("Backend", NothingToDo(megabytes))
        self._work: FineTuneJob | Questions
        if megabytes:
            file = folder / "train.jsonl"
            file.write_text("{}\n", encoding="utf-8")
            output = folder / "models" / str(number)
            self._work = FineTuneJob(
                "benchmark", str(number), file, None, "completion", 0, None, output
            )
        else:
            query = GenerationQuery(id=str(number), prompt="?", max_tokens=1)
            self._work = Questions("none", [query])

    @override
    def prepare(self, report: Report) -> Task | None:
        def take(results: Sequence[Any]) -> None:
            self.came += len(results)

        identity = None
        if isinstance(self._work, FineTuneJob):
            identity = self._backend.identity(self._work)
        return Task(self._backend, self._work, identity, take=take)

    @override
    def finish(self, tuned: TunedModel | None) -> None:
        if tuned is not None:
            self.came += Path(tuned.model, "adapter_model.safetensors").exists()
            shutil.rmtree(tuned.model)

    @override
    def failed(self, error: Exception) -> Exception | None:
        return error


class Simulated(Executor):
    """So many devices; a task takes what it takes, and the driver what it takes for each."""

    attempts = 1
    is_here = False

    def __init__(self, devices: int, seconds: float, spread: float, driver_seconds: float) -> None:
        self.most_at_once = 10_000
        self._seconds, self._spread, self._driver = seconds, spread, driver_seconds
        self._free = [0.0] * devices
        self._random = random.Random(0)
        self._given = 0.0
        self.busy = 0.0
        self._ends: list[tuple[float, int, Future[Any]]] = []

    @override
    def submit(self, task: Task) -> Future[Any]:
        self._given += self._driver
        length = self._seconds * self._random.uniform(1 - self._spread, 1 + self._spread)
        start = max(heapq.heappop(self._free), self._given)
        heapq.heappush(self._free, start + length)
        self.busy += length
        future: Future[Any] = Future()
        future.set_result(start + length)
        return future

    @override
    def result(self, task: Task, done: Future[Any]) -> TunedModel | None:
        return None

    @override
    def stop(self) -> str | None:
        return None

    @property
    def makespan(self) -> float:
        """When the last one is done."""
        return max(self._free)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=("none", "simulated"))
    parser.add_argument("--executor", choices=(LOCAL, *SETTINGS), default=LOCAL)
    parser.add_argument("--set", metavar="JSON", default="{}", help="settings of the executor")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=0, help="of a model that comes back")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of a training")
    parser.add_argument("--spread", type=float, default=0.1, help="of them, to either side")
    parser.add_argument("--driver-seconds", type=float, default=0.1, help="of the driver, a task")
    arguments = parser.parse_args()
    if arguments.what == "none":
        measure(arguments)
    else:
        for devices in (8, 64, 512):
            simulate(arguments, devices)


def measure(arguments: argparse.Namespace) -> None:
    """Prints the row of one executor."""
    with tempfile.TemporaryDirectory() as folder:
        if arguments.executor == LOCAL:
            executor: Executor = LocalExecutor(1)
        else:
            settings = SETTINGS[arguments.executor].model_validate_json(arguments.set)
            executor = open_executor(settings, Path(folder))
        before = peak_bytes()
        works = _works(arguments, Path(folder))
        started = time.monotonic()
        carry_out("nothing", works, executor, Console(stderr=True), lambda _: None)
        seconds = time.monotonic() - started
        assert all(work.came == 1 for work in works)
    row = {
        "executor": arguments.executor,
        "tasks": arguments.tasks,
        "megabytes": arguments.megabytes,
        "seconds a task": round(seconds / arguments.tasks, 6),
        "driver's memory, GB": round(peak_bytes() / 1e9, 3),
        "of it before the first task": round(before / 1e9, 3),
    }
    print(json.dumps(row))


def _works(arguments: argparse.Namespace, folder: Path) -> list[Nothing]:
    return [Nothing(n, arguments.megabytes, folder) for n in range(arguments.tasks)]


def simulate(arguments: argparse.Namespace, devices: int) -> None:
    """Prints what so many trainings take on so many devices."""
    executor = Simulated(devices, arguments.seconds, arguments.spread, arguments.driver_seconds)
    with tempfile.TemporaryDirectory() as folder:
        works = _works(arguments, Path(folder))
        carry_out("simulated", works, executor, Console(quiet=True), lambda _: None)
    row = {
        "GPUs": devices,
        "hours": round(executor.makespan / 3600, 2),
        "GPU hours held": round(devices * executor.makespan / 3600),
        "of them busy": round(executor.busy / (devices * executor.makespan), 3),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
