"""What stands in the store where it is more than what the wire shows."""

from openai.types import Batch, FileObject, Model
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from pydantic import BaseModel, ConfigDict

from backends.server.store import Collection, Store

FINISHED = ("succeeded", "failed", "cancelled")


class Record(BaseModel):
    """A document of the store."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobRecord(Record):
    """A job: as the wire shows it, and what it starts from.

    `starts_from` is the name of the adapter's directory, None for the base model. `reported_step` is
    the last step that has an event, so that a training taken up again repeats none.
    """

    job: FineTuningJob
    suffix: str
    starts_from: str | None
    reported_step: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing more happens to it."""
        return self.job.status in FINISHED


class ModelRecord(Record):
    """A tuned model and the name of its adapter's directory."""

    model: Model
    adapter: str


class Records:
    """The collections of the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files = Collection(store, "files", FileObject)
        self.jobs = Collection(store, "jobs", JobRecord)
        self.events = Collection(store, "events", FineTuningJobEvent)
        self.checkpoints = Collection(store, "checkpoints", FineTuningJobCheckpoint)
        self.models = Collection(store, "models", ModelRecord)
        self.batches = Collection(store, "batches", Batch)
