"""What a finished fine-tuning job gave: the model, once it can be asked, and the training curve."""

import asyncio
import base64
import binascii
import csv
import io
import logging
from collections.abc import Awaitable, Callable

from openai.types.fine_tuning import FineTuningJob

from backends.data import REWARD_COLUMNS, CurvePoint, Rewards
from backends.errors import ServiceError
from backends.openai_api.connection import Connection, RequestFailed
from backends.openai_api.failures import Kind
from backends.openai_api.providers import Provider

_log = logging.getLogger(__name__)

_TRIES = 10
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


async def model_of(connection: Connection, job: FineTuningJob, provider: Provider) -> str:
    """The name of the job's model; services may give it, and know it, a while after the job is done.

    Where the service has no names for models before they are deployed, it is the job's.

    Raises:
        ServiceError: they still don't after some minutes.
    """

    if not provider.names_models:
        return job.id

    async def named() -> str | None:
        again = await connection.call(
            f"ask for {job.id}", lambda: connection.client.fine_tuning.jobs.retrieve(job.id)
        )
        return again.fine_tuned_model

    name = job.fine_tuned_model or await _eventually(named)
    if name is None:
        raise ServiceError(
            f"{job.id}: succeeded, but the service names no model; start again later"
        )

    if provider.deploying or not await _is_known(connection, job.model):
        return name  # the service does not tell of it, or of none of its models

    async def known() -> str | None:
        return name if await _is_known(connection, name) else None

    if await _eventually(known) is None:
        _log.warning("%s: the service does not list the model %s (yet); going on", job.id, name)
    return name


async def _is_known(connection: Connection, model: str) -> bool:
    try:
        await connection.once(lambda: connection.client.models.retrieve(model))
    except RequestFailed as error:
        # Keys may be kept from asking; what is paid for is not lost for that.
        unknown = error.failure.kind is Kind.NOT_FOUND or error.failure.status == 403
        if unknown or error.failure.transient:
            return False
        raise error.failure.as_error(f"ask for the model {model}") from error
    return True


async def _eventually(look: Callable[[], Awaitable[str | None]]) -> str | None:
    wait = _FIRST_WAIT_SECONDS
    for _ in range(_TRIES):
        found = await look()
        if found is not None:
            return found
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
    return None


async def training_curve(connection: Connection, job: FineTuningJob) -> tuple[CurvePoint, ...]:
    """The losses of the job's result file, a CSV with a row a step; empty where there is none to be had."""
    points: list[CurvePoint] = []
    for file_id in job.result_files:
        try:
            content = await connection.call(
                f"fetch the results of {job.id}",
                lambda file_id=file_id: connection.client.files.content(file_id),
            )
        except ServiceError as error:
            _log.warning("%s; the run goes on without a training curve", error)
            continue
        points += parse_metrics(content.content)
    return tuple(points)


def parse_metrics(content: bytes) -> list[CurvePoint]:
    """The steps of a result file: CSV, plain or (as some have seen it) in base64."""
    try:
        text = base64.b64decode(content, validate=True).decode()
    except (binascii.Error, ValueError):
        text = content.decode(errors="replace")
    points = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            step, loss = int(float(row["step"])), float(row["train_loss"])
        except (KeyError, TypeError, ValueError):
            continue  # rows of whole epochs have no training loss
        points.append(
            CurvePoint(
                step=step, train_loss=loss, validation_loss=_validation(row), rewards=_rewards(row)
            )
        )
    return points


def _rewards(row: dict[str, str | None]) -> Rewards | None:
    """Of preferences, as `kaarel-bet serve` tells of them."""
    found = {name: row.get(column) for column, name in REWARD_COLUMNS.items()}
    try:
        return Rewards(**{name: float(value or "") for name, value in found.items()})
    except ValueError:
        return None


def _validation(row: dict[str, str | None]) -> float | None:
    value = row.get("full_valid_loss") or row.get("valid_loss")
    try:
        return float(value) if value else None
    except ValueError:
        return None
