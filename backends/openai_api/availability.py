"""What a service still offers, and until when: the model, and at OpenAI itself fine-tuning at all.

OpenAI's dates: https://platform.openai.com/docs/deprecations (as of 2026-11). Other services of the same
wire go by their own, which `Model.shutdown_date` tells where they tell it.
"""

import logging
from datetime import date
from urllib.parse import urlsplit

from openai.types import Model

from backends.errors import ModelError, ServiceError
from backends.openai_api.connection import AT_HAND_SECONDS, Connection, RequestFailed
from backends.openai_api.failures import INSTEAD, LAST_DAY_OF_TRAINING, NO_MORE_TRAINING, Kind
from backends.openai_api.models import base_name

_log = logging.getLogger(__name__)

_SHUT_DOWN = {
    "gpt-3.5-turbo": date(2026, 10, 23),
    "gpt-4.1-nano": date(2026, 10, 23),
    "gpt-4.1": date(2027, 1, 14),
    "gpt-4o": date(2027, 1, 14),
}
"""Family -> the day from which OpenAI answers for none of it, nor for what was fine-tuned from it."""


def today() -> date:
    """The day; tests set it."""
    return date.today()


def is_openais_own(address: str) -> bool:
    """Whether the service is OpenAI's, in any of its regions."""
    host = urlsplit(address).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def last_days(address: str, model: str) -> dict[str, str]:
    """What to know before spending money at OpenAI: until when it trains, and has the model."""
    if not is_openais_own(address):
        return {}
    told = {
        "new fine-tuning jobs": f"until {LAST_DAY_OF_TRAINING}, of organisations with recent ones only"
    }
    if day := _known_shutdown(model):
        told["model and what is tuned from it"] = f"until {day}"
    return told


def check_training(address: str) -> None:
    """Raises ServiceError where OpenAI, by its own word, creates no job any more."""
    if is_openais_own(address) and today() > LAST_DAY_OF_TRAINING:
        raise ServiceError(NO_MORE_TRAINING)


async def check_model(connection: Connection, name: str) -> None:
    """That a base model is there and stays.

    Raises:
        ModelError: the service does not know it.
        ServiceError: it is shut down.
    """
    if is_openais_own(connection.address) and (day := _known_shutdown(name)):
        _check_day(name, day)
    try:
        model = await _told_of(connection, name)
    except RequestFailed as error:
        if error.failure.code == "model_not_found":
            raise ModelError(
                f"openai.model: {error.failure.message}; name a model that {connection.address} has, or "
                "by openai.base_url another service (`kaarel-bet serve`: http://127.0.0.1:8000/v1)"
            ) from error
        return  # not every service tells of its models, nor every key of a service
    check_shutdown(name, model.shutdown_date)


async def tells_of(connection: Connection, model: str) -> bool:
    """Whether the service knows a model, and tells. Raises ServiceError if it can't be asked."""
    try:
        await _told_of(connection, model)
    except RequestFailed:
        return False
    return True


async def may_have(connection: Connection, model: str, base: str) -> bool:
    """Whether a service may have a model that was made of a base: it tells of it, or of neither.

    Not every service tells of its models, nor to every key. Raises as `tells_of`.
    """
    return await tells_of(connection, model) or not await tells_of(connection, base)


async def _told_of(connection: Connection, name: str) -> Model:
    """Raises RequestFailed where the model is not known or nothing is told, and ServiceError."""
    what = f"ask for the model {name}"
    try:
        return await connection.tried(
            what,
            lambda: connection.client.models.retrieve(name),
            patience_seconds=AT_HAND_SECONDS,
        )
    except RequestFailed as error:
        failed = error.failure
        unknown = failed.kind is Kind.NOT_FOUND or failed.code == "model_not_found"
        if unknown or failed.status == 403:
            raise
        raise failed.as_error(what) from error


def check_shutdown(model: str, told: str | None) -> None:
    """Warns of a model that will be shut down by a service's word. Raises ServiceError if it was."""
    try:
        day = date.fromisoformat((told or "")[:10])
    except ValueError:
        return
    _check_day(model, day)
    _log.warning("%s, and what is fine-tuned from it, is shut down on %s", model, day)


def _check_day(model: str, day: date) -> None:
    if day <= today():
        raise ServiceError(
            f"openai.model: {model} was shut down on {day}; name another model, {INSTEAD}"
        )


def _known_shutdown(model: str) -> date | None:
    name = base_name(model)
    families = [known for known in _SHUT_DOWN if name == known or name.startswith(f"{known}-")]
    return _SHUT_DOWN[max(families, key=len)] if families else None
