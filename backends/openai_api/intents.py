"""What is written down before something is bought, so that it is found again and never bought twice."""

from pathlib import Path

from pydantic import ValidationError

from backends import atomic
from backends.errors import DataError, ServiceError
from backends.schema import Strict, explain


class Intent(Strict):
    """A job (or batch) about to be created at a service, or created there.

    `fingerprint` is of everything that makes the job what it is; `sent` (seconds since 1970) is when its
    creation was last sent, None before; `job_id` is the service's name for it, None while not known.
    """

    address: str
    fingerprint: str
    sent: float | None = None
    job_id: str | None = None


class IntentFile:
    """Where the intent of one job is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, address: str, fingerprint: str) -> Intent:
        """What is there, or a new intent (not written yet).

        Raises:
            DataError: the file is malformed.
            ServiceError: it is of another service, or of another job.
        """
        if not self.path.exists():
            return Intent(address=address, fingerprint=fingerprint)
        try:
            intent = Intent.model_validate_json(self.path.read_bytes())
        except ValidationError as error:
            raise DataError(f"{self.path}: {explain(error)}") from error
        if intent.address != address:
            raise ServiceError(
                f"{self.path}: this job was started at {intent.address}, not at {address}; set "
                "OPENAI_BASE_URL back, or start a new run"
            )
        if intent.fingerprint != fingerprint:
            raise ServiceError(
                f"{self.path}: the job that was started had other data or settings; start a new run"
            )
        return intent

    def write(self, intent: Intent) -> Intent:
        """Puts it on disk; returns it."""
        atomic.write_text(self.path, intent.model_dump_json(indent=2) + "\n")
        return intent

    def remove(self) -> None:
        """Takes it back: it is certain that nothing was created."""
        self.path.unlink(missing_ok=True)
