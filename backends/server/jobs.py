"""Fine-tuning jobs: checked, queued, trained one at a time, and taken up again after a restart."""

import io
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.fine_tuning_job import Error

from backends.data import CurvePoint, TunedModel
from backends.errors import KaarelBetError, TrainingError
from backends.interface import FineTuneJob, Progress
from backends.local.encoding import Encoder
from backends.local.settings import LocalSettings
from backends.local.training_process import Stopped, TrainingOrder
from backends.server.data_dir import DataDirectory
from backends.server.errors import invalid, not_found, too_many
from backends.server.files import Files
from backends.server.hyperparameters import local_settings, loss_on, method_of, resolved
from backends.server.identifiers import new_id, now
from backends.server.models import Models
from backends.server.pace import Pace
from backends.server.records import JobRecord, Records
from backends.server.results import checkpoint, result_csv
from backends.server.training import Train
from backends.server.training_data import MINIMUM_EXAMPLES, InvalidData, count_examples

KEPT_EPOCHS = 3
"""Of a job, the models after so many of its last epochs, as the service keeps them."""

_log = logging.getLogger(__name__)


class Jobs:
    """The jobs and the two threads that work on them: one checks data, one trains."""

    def __init__(
        self,
        records: Records,
        data: DataDirectory,
        files: Files,
        models: Models,
        local: LocalSettings,
        *,
        encoder: Callable[[], Encoder],
        train: Train,
        max_unfinished: int,
    ) -> None:
        self._records = records
        self._data = data
        self._files = files
        self._models = models
        self._local = local
        self._encoder = encoder
        self._train = train
        self._max_unfinished = max_unfinished
        self._checking = ThreadPoolExecutor(1, thread_name_prefix="checking")
        self._training = ThreadPoolExecutor(1, thread_name_prefix="training")
        self._stops: dict[str, threading.Event] = {}
        self._closing = False

    def start(self) -> None:
        """Takes up what an earlier server left unfinished, in the order it was created."""
        for record in self._records.jobs.all():
            if record.job.status == "validating_files":
                self._checking.submit(self._check, record.job.id)
            elif not record.finished:
                self._training.submit(self._work, record.job.id)

    def close(self) -> None:
        """Stops the training, which the next server takes up."""
        self._closing = True
        for stop in list(self._stops.values()):
            stop.set()
        self._checking.shutdown(cancel_futures=True)
        self._training.shutdown(cancel_futures=True)

    def add(self, job: FineTuningJob, suffix: str) -> FineTuningJob:
        """Queues a new job with its own copy of the data.

        Raises:
            ServiceError: a file is not there or not for training (400), the model is not served
                (404), or too many jobs are waiting (429).
        """
        starts_from = self._models.adapter(job.model)
        unfinished = self._records.jobs.page(
            limit=self._max_unfinished, keep=lambda record: not record.finished
        )
        if len(unfinished.documents) >= self._max_unfinished:
            raise too_many(f"{self._max_unfinished} jobs are waiting already; try again later.")
        self._check_purpose(job.training_file, "training_file")
        if job.validation_file is not None:
            self._check_purpose(job.validation_file, "validation_file")
        self._data.job(job.id).mkdir()
        self._files.copy(job.training_file, self._data.training_file(job.id))
        if job.validation_file is not None:
            self._files.copy(job.validation_file, self._data.validation_file(job.id))
        record = JobRecord(job=job, suffix=suffix, starts_from=starts_from)
        with self._records.store.transaction():
            self._records.jobs.add(job.id, record)
            self._event(job.id, f"Created fine-tuning job: {job.id}")
            self._event(job.id, f"Validating training file: {job.training_file}")
        self._checking.submit(self._check, job.id)
        return job

    def get(self, identifier: str) -> FineTuningJob:
        """The job. Raises ServiceError (404) where there is none."""
        record = self._records.jobs.get(identifier)
        if record is None:
            raise not_found("fine-tuning job", identifier)
        return record.job

    def cancel(self, identifier: str) -> FineTuningJob:
        """Stops it for good. Raises ServiceError if there is none (404) or it is finished (400)."""
        self.get(identifier)

        def cancelled(record: JobRecord) -> JobRecord:
            if record.finished:
                raise invalid(f"Job has already completed: {identifier}", code="job_finished")
            return _changed(record, status="cancelled", finished_at=now(), estimated_finish=None)

        with self._records.store.transaction():
            record = self._records.jobs.change(identifier, cancelled)
            self._event(identifier, "Fine-tuning job cancelled", level="warn")
        if stop := self._stops.get(identifier):
            stop.set()
        self._tidy(identifier)
        return record.job

    def _check_purpose(self, file_id: str, param: str) -> None:
        file = self._files.find(file_id)
        if file is None:
            raise invalid(f"There is no file {file_id}.", param, "file_not_found")
        if file.purpose != "fine-tune":
            message = f"The file's purpose is '{file.purpose}', and must be 'fine-tune'."
            raise invalid(message, param, f"invalid_{param}")

    def _tidy(self, identifier: str) -> None:
        """Deletes what a finished job needs no more, its copy of the data above all."""
        record = self._records.jobs.get(identifier)
        if record is not None and record.finished and identifier not in self._stops:
            self._data.remove_work(identifier)
            if record.job.status != "succeeded":
                self._data.remove_epoch_models(identifier)

    def _check(self, identifier: str) -> None:
        try:
            self._checked(identifier)
        finally:
            self._tidy(identifier)

    def _checked(self, identifier: str) -> None:
        """Looks at the data of a job; then it is queued or has failed."""
        try:
            n_examples = self._n_examples(identifier)
        except InvalidData as problem:
            self._fail(identifier, problem.code, problem.message, problem.param)
            return
        except KaarelBetError as error:
            self._fail(identifier, "server_error", str(error))
            return
        except Exception:
            if self.get(identifier).status == "cancelled":  # and its data deleted
                return
            _log.exception("checking the data of %s", identifier)
            self._fail(identifier, "server_error", "The server could not check the data.")
            return

        def queued(record: JobRecord) -> JobRecord:
            if record.finished:
                return record
            job = resolved(record.job, self._local, n_examples)
            return record.model_copy(update={"job": job.model_copy(update={"status": "queued"})})

        with self._records.store.transaction():
            record = self._records.jobs.change(identifier, queued)
            if not record.finished:
                self._event(identifier, "Files validated, moving job to queued state")
        if not record.finished and not self._closing:
            self._training.submit(self._work, identifier)

    def _n_examples(self, identifier: str) -> int:
        encoder, method = self._encoder(), method_of(self.get(identifier))
        validation = self._data.validation_file(identifier)
        if validation.exists():
            count_examples(validation, "validation_file", encoder, method, minimum=1)
        training = self._data.training_file(identifier)
        return count_examples(training, "training_file", encoder, method, minimum=MINIMUM_EXAMPLES)

    def _work(self, identifier: str) -> None:
        """Trains a job, unless it was cancelled meanwhile."""
        stop = self._stops[identifier] = threading.Event()
        try:
            record = self._records.jobs.get(identifier)
            if self._closing or record is None or record.finished:
                return
            if record.job.status != "running":
                self._running(identifier)
            pace = Pace()
            tuned = self._train(
                self._order(record), lambda now: self._progress(identifier, pace, now), stop
            )
            self._succeed(identifier, tuned)
        except Stopped:
            return
        except KaarelBetError as error:
            self._fail(identifier, "training_failed", str(error))
        except Exception:
            _log.exception("training %s", identifier)
            self._fail(identifier, "server_error", "The server failed while training.")
        finally:
            del self._stops[identifier]
            self._tidy(identifier)

    def _order(self, record: JobRecord) -> TrainingOrder:
        job = record.job
        validation = self._data.validation_file(job.id)
        starts_from = None if record.starts_from is None else self._data.adapter(record.starts_from)
        if starts_from is not None and not starts_from.exists():
            raise TrainingError("The model that the job starts from was deleted.")
        return TrainingOrder(
            settings=local_settings(job, self._local),
            job=FineTuneJob(
                run_id=job.id,
                name=job.id,
                training_file=self._data.training_file(job.id),
                validation_file=validation if validation.exists() else None,
                loss_on=loss_on(job),
                seed=job.seed,
                starts_from=None if starts_from is None else str(starts_from),
                output=self._data.adapter(job.id),
                method=method_of(job),
                kept_epochs=KEPT_EPOCHS,
            ),
            lock=self._data.training_lock,
        )

    def _running(self, identifier: str) -> None:
        with self._records.store.transaction():
            record = self._records.jobs.change(
                identifier, lambda r: r if r.finished else _changed(r, status="running")
            )
            if not record.finished:
                self._event(identifier, "Fine-tuning job started")

    def _progress(self, identifier: str, pace: Pace, progress: Progress) -> None:
        finish = pace.estimated_finish(progress)

        def reached(record: JobRecord) -> JobRecord:
            if record.finished:
                return record
            step = max(progress.done, record.reported_step)
            changed = record.model_copy(update={"reported_step": step})
            return _changed(changed, estimated_finish=finish)

        with self._records.store.transaction():
            before = self._records.jobs.get(identifier)
            if before is None or not pace.worth_telling(progress):
                return
            self._records.jobs.change(identifier, reached)
            if progress.loss is not None and progress.done > before.reported_step:
                message = (
                    f"Step {progress.done}/{progress.total}: training loss={progress.loss:.4f}"
                )
                metrics: dict[str, object] = {
                    "step": progress.done,
                    "total_steps": progress.total,
                    "train_loss": progress.loss,
                }
                self._event(identifier, message, metrics=metrics)

    def _succeed(self, identifier: str, tuned: TunedModel) -> None:
        with self._records.store.transaction():
            record = self._records.jobs.get(identifier)
            if record is None or record.finished:
                return
            csv = io.BytesIO(result_csv(tuned.training_curve))
            file = self._files.keep("step_metrics.csv", csv, "fine-tune-results")
            model = self._models.add_tuned(identifier, record.job.model, record.suffix).id
            self._add_checkpoints(identifier, model, tuned.training_curve)
            self._records.jobs.change(
                identifier,
                lambda record: _changed(
                    record,
                    status="succeeded",
                    fine_tuned_model=model,
                    finished_at=now(),
                    estimated_finish=None,
                    result_files=[file.id],
                    trained_tokens=tuned.trained_tokens,
                ),
            )
            self._event(identifier, f"New fine-tuned model created: {model}")
            self._event(identifier, "The job has successfully completed")

    def _add_checkpoints(self, identifier: str, model: str, curve: tuple[CurvePoint, ...]) -> None:
        """The models after earlier epochs, oldest first, and the job's own."""
        names = {
            step: self._models.add_checkpoint(model, step, adapter)
            for step, adapter in self._data.epoch_models(identifier).items()
        }
        names[curve[-1].step] = model
        for point in curve:
            if point.step in names:
                made = checkpoint(identifier, names[point.step], point)
                self._records.checkpoints.add(made.id, made, owner=identifier)

    def _fail(self, identifier: str, code: str, message: str, param: str | None = None) -> None:
        error = Error(code=code, message=message, param=param)

        def failed(record: JobRecord) -> JobRecord:
            if record.finished:
                return record
            return _changed(
                record, status="failed", error=error, finished_at=now(), estimated_finish=None
            )

        with self._records.store.transaction():
            record = self._records.jobs.change(identifier, failed)
            if record.job.status == "failed":
                self._event(identifier, message, level="error")

    def _event(
        self,
        identifier: str,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        metrics: dict[str, object] | None = None,
    ) -> None:
        event = FineTuningJobEvent(
            id=new_id("ftevent-"),
            object="fine_tuning.job.event",
            created_at=now(),
            level=level,
            message=message,
            type="message" if metrics is None else "metrics",
            data=metrics or {},
        )
        self._records.events.add(event.id, event, owner=identifier)


def _changed(record: JobRecord, **update: object) -> JobRecord:
    return record.model_copy(update={"job": record.job.model_copy(update=update)})
