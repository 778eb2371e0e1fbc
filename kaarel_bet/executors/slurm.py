"""Tasks as jobs of Slurm, by submitit, which outlive this command and are found again by what they are.

Everything of a job is in one folder that the machines share, as submitit wants it: its parcel, its outcome,
how far it has come and the checkpoints of its training, so that a job that was cut off goes on from there.
"""

import hashlib
import json
import shutil
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock
from typing_extensions import override

from backends import atomic
from backends.data import TunedModel
from backends.errors import SettingsError
from backends.interface import FineTuneJob, Progress
from kaarel_bet.executors.interface import Died, Executor
from kaarel_bet.executors.settings import SlurmSettings
from kaarel_bet.executors.tasks import Outcome, Parcel, Task, now_and_then, pack, perform, unpack

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_REPORTS = 5.0
_RULE = "-" * 22
_NAMED = 50
"""Jobs that are named to whoever may want to cancel them."""


@dataclass
class _Job:
    """A job of submitit, and what it is to the task."""

    key: str
    job: Any
    task: Task
    future: Future[Any] = field(default_factory=Future[Any])
    told: float = 0.0


class SlurmExecutor(Executor):
    """A task is a job; `folder` is where they are noted, for every command that has the same folder."""

    is_here = False

    def __init__(self, settings: SlurmSettings, folder: Path) -> None:
        """Raises SettingsError: Slurm is not here, or a parameter is none of submitit's."""
        self._settings = settings
        self._folder = (settings.folder or folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self.most_at_once = settings.most_at_once
        self.attempts = settings.attempts
        self._submitit, self._job_class = _submitit(settings, self._folder)
        self._jobs: dict[str, _Job] = {}
        self._stopping = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @override
    def submit(self, task: Task) -> Future[Any]:
        key = _key(task)
        # So that of two commands that want the same one submits it, and the other one waits for it.
        with FileLock(self._folder / ".lock"):
            job = self._noted(key) or self._submitted(key, task)
        mine = _Job(key, job, task)
        self._jobs[key] = mine
        return mine.future

    @override
    def result(self, task: Task, done: Future[Any]) -> TunedModel | None:
        try:
            outcome = done.result()
        except Died:
            self._note(_key(task)).unlink(missing_ok=True)
            raise
        result = unpack(task, outcome)
        self._remove(_key(task))
        return result

    @override
    def stop(self) -> str | None:
        ids = [mine.job.job_id for mine in list(self._jobs.values()) if not mine.future.done()]
        if not ids:
            return None
        self._stopping.set()
        command = "scancel" if self._settings.cluster == "slurm" else "kill"
        named = " ".join(ids[:_NAMED]) + (" ..." if len(ids) > _NAMED else "")
        how = f"the same command finds them again; to stop them: {command} {named}"
        return f"{len(ids)} jobs go on, and {how}"

    def _submitted(self, key: str, task: Task) -> Any:  # noqa: ANN401 - submitit's
        parcel = pack(task, self._settings.cpus)
        working = self._folder / f"{key}.work"
        try:
            job = self._submitit.submit(_perform, parcel, working)
        except Exception as error:
            raise SettingsError(f"slurm: {_last_line(error)}") from error
        atomic.write_text(self._note(key), json.dumps({"job": job.job_id}) + "\n")
        return job

    def _noted(self, key: str) -> Any | None:  # noqa: ANN401
        """The job that was submitted for this before."""
        try:
            job_id = json.loads(self._note(key).read_bytes())["job"]
        except (OSError, ValueError, KeyError):
            return None
        return self._job_class(self._folder, job_id)

    def _note(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _remove(self, key: str) -> None:
        """What is in place has no further use here."""
        mine = self._jobs.pop(key)
        self._note(key).unlink(missing_ok=True)
        shutil.rmtree(self._folder / f"{key}.work", ignore_errors=True)
        for path in self._folder.glob(f"{mine.job.job_id}_*"):
            path.unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
            for mine in [one for one in list(self._jobs.values()) if not one.future.done()]:
                if _is_done(mine.job):
                    _settle(mine)
                elif time.monotonic() - mine.told > _SECONDS_BETWEEN_REPORTS:
                    mine.told = time.monotonic()
                    self._tell(mine)

    def _tell(self, mine: _Job) -> None:
        try:
            read = json.loads((self._folder / f"{mine.key}.work" / _PROGRESS).read_bytes())
        except (OSError, ValueError):
            return  # it waits, or has not come so far
        mine.task.report(Progress(**read))


_PROGRESS = "progress.json"


def _submitit(settings: SlurmSettings, folder: Path) -> tuple[Any, type[Any]]:
    """What submits, and the class of jobs."""
    import submitit

    try:
        executor = submitit.AutoExecutor(folder, cluster=settings.cluster)
        executor.update_parameters(
            name="kaarel-bet",
            cpus_per_task=settings.cpus,
            gpus_per_node=settings.gpus,
            timeout_min=settings.minutes,
        )
        executor.update_parameters(**settings.parameters)
    except (RuntimeError, NameError, AssertionError, ValueError) as error:
        raise SettingsError(f"slurm: {str(error).strip().splitlines()[0]}") from error
    classes = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
    return executor, classes[settings.cluster]


def _perform(parcel: Parcel, directory: Path) -> Outcome:
    """What a job does."""
    directory.mkdir(parents=True, exist_ok=True)

    def tell(now: Progress) -> None:
        atomic.write_text(directory / _PROGRESS, json.dumps(vars(now)))

    # A job that was taken for dead may still be ending.
    with FileLock(directory / ".lock"):
        return perform(parcel, directory, now_and_then(tell, _SECONDS_BETWEEN_REPORTS))


def _key(task: Task) -> str:
    """What tells a task from any other, whichever run it is of."""
    work = task.work
    asked = (
        [] if isinstance(work, FineTuneJob) else [q.model_dump(mode="json") for q in work.queries]
    )
    parts = [type(work).__name__, task.identity, asked]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _is_done(job: Any) -> bool:  # noqa: ANN401
    """As submitit says; its local jobs of an earlier command it takes for done."""
    if getattr(job, "_process", job) is None and not job.paths.result_pickle.exists():
        return not psutil.pid_exists(int(job.job_id))
    return job.done()


def _settle(mine: _Job) -> None:
    try:
        mine.future.set_result(mine.job.result())
    except Exception as error:
        mine.future.set_exception(
            Died(f"job {mine.job.job_id} ({mine.job.state}): {_last_line(error)}")
        )


def _last_line(error: Exception) -> str:
    """The last of a job's own: submitit puts the trace of an error between two rules."""
    text = str(error)
    if text.count(_RULE) >= 2:
        text = text.split(_RULE)[1]
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return lines[-1] if lines else type(error).__name__
