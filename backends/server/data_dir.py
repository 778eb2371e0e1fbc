"""The data directory: the only code that makes its paths, from identifiers made here alone.

kaarel-bet.sqlite3        files, jobs, events, checkpoints, models, batches: what counts
files/<file-id>           the content of uploaded and resulting files
jobs/<job-id>/            the training data as it was when the job was created
models/<job-id>/          PEFT adapters, of earlier epochs <job-id>.step-<n>; beside them
                          .<job-id>.checkpoint of a training under way
batches/<batch-id>/       the requests and the answers so far
server.lock training.lock
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from backends.errors import SettingsError


class DataDirectory:
    """One server's data; a second server on it is refused."""

    def __init__(self, path: Path) -> None:
        """Makes the directory, for its user alone, and locks it.

        Raises:
            SettingsError: another server is using it.
        """
        self.path = path.absolute()
        for name in ("files", "jobs", "models", "batches"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self._lock = FileLock(self.path / "server.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise SettingsError(f"{path}: another server is using this data directory") from None

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.path / "kaarel-bet.sqlite3"

    @property
    def training_lock(self) -> Path:
        """Held by whoever trains: one training at a time."""
        return self.path / "training.lock"

    def file(self, identifier: str) -> Path:
        """The content of a file."""
        return self.path / "files" / identifier

    def job(self, identifier: str) -> Path:
        """A job's working directory."""
        return self.path / "jobs" / identifier

    def training_file(self, identifier: str) -> Path:
        """A job's own copy of its training data."""
        return self.job(identifier) / "training.jsonl"

    def validation_file(self, identifier: str) -> Path:
        """A job's own copy of its validation data."""
        return self.job(identifier) / "validation.jsonl"

    def adapter(self, name: str) -> Path:
        """An adapter's directory, by the id of the job that made it or as `epoch_models` has it."""
        return self.path / "models" / name

    def epoch_models(self, job_id: str) -> dict[int, str]:
        """Steps, ascending -> the name of the adapter that a job had then, after an earlier epoch."""
        names = [path.name for path in (self.path / "models").glob(f"{job_id}.step-*")]
        return dict(sorted((int(name.rpartition("-")[2]), name) for name in names))

    def remove_epoch_models(self, job_id: str) -> None:
        """Deletes those of a job that did not succeed."""
        for name in self.epoch_models(job_id).values():
            shutil.rmtree(self.adapter(name), ignore_errors=True)

    def sweep(self, kind: str, needed: Callable[[str], bool]) -> None:
        """Deletes the files, jobs, models or batches but for those whose names are needed.

        A killed server leaves some: written before their record, or not deleted yet after their end.
        """
        for path in (self.path / kind).iterdir():
            if needed(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def remove_work(self, job_id: str) -> None:
        """Deletes a finished job's working directory and the checkpoint of its training."""
        shutil.rmtree(self.job(job_id), ignore_errors=True)
        for leftover in (self.path / "models").glob(f".{job_id}.*"):
            leftover.unlink(missing_ok=True)

    def batch(self, identifier: str) -> Path:
        """A batch's working directory."""
        return self.path / "batches" / identifier

    def close(self) -> None:
        """Lets another server have it."""
        self._lock.release()
