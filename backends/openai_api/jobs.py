"""The fine-tuning jobs that a service has, for whoever wants to see, follow or cancel one."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from openai.types.fine_tuning import FineTuningJob

from backends.interface import Progress
from backends.openai_api.connection import AT_HAND_SECONDS, Connection
from backends.openai_api.job_following import Follower
from backends.openai_api.settings import OpenAISettings


@dataclass(frozen=True)
class JobLine:
    """A job as it is listed; `arm` and `run_id` are "" for jobs that are not ours."""

    id: str
    status: str
    model: str
    created: int
    run_id: str
    arm: str


class Jobs:
    """The jobs of one service."""

    def __init__(self, settings: OpenAISettings) -> None:
        self._connection = Connection(settings)
        self._poll_seconds = settings.job.poll_seconds

    def latest(self, most: int) -> list[JobLine]:
        """The latest jobs, newest first. Raises ServiceError."""
        listing = self._connection.client.fine_tuning.jobs.list
        page = self._connection.run(
            self._connection.call(
                "list the fine-tuning jobs",
                lambda: listing(limit=most),
                patience_seconds=AT_HAND_SECONDS,
            )
        )
        return [_line(job) for job in islice(page.data, most)]

    def follow(self, job_id: str, report: Callable[[Progress], None]) -> None:
        """Shows a job's events until it has succeeded. Raises ServiceError if it does not."""
        follower = Follower(self._connection, job_id, self._poll_seconds, report)
        self._connection.run(follower.finished())

    def cancel(self, job_id: str) -> str:
        """Cancels a job; returns its status after that. Raises ServiceError."""
        cancel = self._connection.client.fine_tuning.jobs.cancel
        call = self._connection.call(
            f"cancel {job_id}", lambda: cancel(job_id), patience_seconds=AT_HAND_SECONDS
        )
        return self._connection.run(call).status


def _line(job: FineTuningJob) -> JobLine:
    metadata = job.metadata or {}
    return JobLine(
        id=job.id,
        status=job.status,
        model=job.fine_tuned_model or job.model,
        created=job.created_at,
        run_id=metadata.get("run_id", ""),
        arm=metadata.get("arm", ""),
    )
