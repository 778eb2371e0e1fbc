"""The worker that trains two models: `python benchmarks/ours_trainings.py [--in-turn] JOB`, see jobs.py.

Side by side, each in a process of its own with its part of the threads or a GPU of its own; or one after
the other in this process. The clock runs from before the models are loaded until both are trained.
"""

import argparse
import dataclasses
import json
import resource
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jobs import Measured, TrainingJob
from ours import peak_bytes, settings_of

from backends.data import TunedModel
from backends.interface import FineTuneJob, Place
from backends.local.backend import LocalBackend

TRAININGS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--in-turn", action="store_true", help="one after the other")
    parser.add_argument("job")
    arguments = parser.parse_args()
    job = TrainingJob(**json.loads(arguments.job))
    backend = LocalBackend(settings_of(job))
    stop = threading.Event()

    def train(number: int) -> TunedModel:
        place = None if arguments.in_turn else Place(number, TRAININGS, stop)
        output = Path(directory, f"arm-{number}")
        fine_tune = FineTuneJob(
            "benchmark", "arm", Path(job.data), None, job.loss_on, number, None, output
        )
        return backend.fine_tune(fine_tune, lambda _: None, place)

    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        with ThreadPoolExecutor(1 if arguments.in_turn else TRAININGS) as threads:
            trained = list(threads.map(train, range(TRAININGS)))
        seconds = time.monotonic() - started
    memory = peak_bytes()
    if not arguments.in_turn:
        memory = TRAININGS * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    count = sum(job.epochs * model.n_examples for model in trained)
    print(json.dumps(dataclasses.asdict(Measured(seconds, count, memory))))


if __name__ == "__main__":
    main()
