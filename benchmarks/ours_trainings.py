"""The worker that trains six models: `python benchmarks/ours_trainings.py HOW JOB`, see jobs.py.

As many arms and trainings as the default bet has: side by side, each in a process of its own with its part
of the threads or a GPU of its own; in one pass of one model; or one after the other in this process. The
clock runs from before the models are loaded until all are trained.
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

import torch
from jobs import Measured, TrainingJob
from ours import peak_bytes, settings_of

from backends.data import TunedModel
from backends.interface import FineTuneJob, Place
from backends.local.backend import LocalBackend

TRAININGS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("how", choices=("side-by-side", "one-pass", "in-turn"))
    parser.add_argument("job")
    arguments = parser.parse_args()
    job = TrainingJob(**json.loads(arguments.job))
    settings = settings_of(job).model_copy(update={"one_pass": arguments.how == "one-pass"})
    backend = LocalBackend(settings)
    at_once = {"side-by-side": _places(), "one-pass": TRAININGS, "in-turn": 1}[arguments.how]
    stop = threading.Event()

    def train(number: int) -> TunedModel:
        place = None if arguments.how == "in-turn" else Place(number % at_once, at_once, stop)
        output = Path(directory, f"arm-{number}")
        fine_tune = FineTuneJob(
            "benchmark", "arm", Path(job.data), None, job.loss_on, number, None, output
        )
        return backend.fine_tune(fine_tune, lambda _: None, place)

    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        with ThreadPoolExecutor(at_once) as threads:
            trained = list(threads.map(train, range(TRAININGS)))
        seconds = time.monotonic() - started
    memory = peak_bytes()
    if arguments.how == "side-by-side":
        memory = at_once * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    count = sum(job.epochs * model.n_examples for model in trained)
    print(json.dumps(dataclasses.asdict(Measured(seconds, count, memory))))


def _places() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else torch.get_num_threads()


if __name__ == "__main__":
    main()
