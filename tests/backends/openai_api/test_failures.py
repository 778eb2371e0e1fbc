"""What every error of the SDK means."""

import inspect
import json

import httpx2
import openai
import pytest

from backends.openai_api.failures import NO_MORE_TRAINING, Failure, Kind, failure

REQUEST = httpx2.Request("GET", "http://127.0.0.1/v1/x")


def status_error(
    status: int, *, code: str = "", message: str = "no", headers: dict[str, str] | None = None
) -> Failure:
    """What a service's answer with this status comes to, by the SDK's own reading of it."""
    body = {"error": {"message": message, "type": "t", "param": None, "code": code}}
    client = openai.OpenAI(
        api_key="k",
        base_url="http://127.0.0.1/v1",
        max_retries=0,
        http_client=httpx2.Client(
            transport=httpx2.MockTransport(
                lambda _: httpx2.Response(status, json=body, headers=headers)
            )
        ),
    )
    with pytest.raises(openai.APIStatusError) as raised:
        client.models.list()
    return failure(raised.value)


def everything_the_sdk_raises() -> list[type[Exception]]:
    kinds = [openai.OpenAIError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return list(kinds)


def make(kind: type[Exception]) -> Exception:
    """An instance, whatever its constructor asks for."""
    made = kind.__new__(kind)
    Exception.__init__(made, "made")
    made.__dict__ |= {
        "message": "made",
        "request": REQUEST,
        "response": httpx2.Response(418, request=REQUEST),
        "status_code": getattr(kind, "status_code", 418),
        "body": None,
        "code": None,
        "type": None,
    }
    return made


@pytest.mark.parametrize("kind", everything_the_sdk_raises(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_sdk_means_something(kind: type[Exception]) -> None:
    assert not inspect.isabstract(kind)
    assert failure(make(kind)).message


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        failure(ZeroDivisionError())


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (400, "", "File 'x' is still being processed.", Kind.NOT_READY),
        (400, "", "n_epochs is too large", Kind.REFUSED),
        (401, "invalid_api_key", "Incorrect API key", Kind.REFUSED),
        (403, "training_not_available", "", Kind.REFUSED),
        (404, "model_not_found", "no such model", Kind.NOT_FOUND),
        (408, "", "", Kind.UNKNOWN),
        (409, "", "", Kind.UNKNOWN),
        (422, "", "", Kind.REFUSED),
        (429, "rate_limit_exceeded", "slow down", Kind.LIMITED),
        (429, "insufficient_quota", "pay", Kind.REFUSED),
        (429, "daily_rate_limit_exceeded", "tomorrow", Kind.CAPPED),
        (500, "", "", Kind.UNKNOWN),
        (503, "", "", Kind.UNKNOWN),
    ],
)
def test_what_an_answer_means(status: int, code: str, message: str, kind: Kind) -> None:
    assert status_error(status, code=code, message=message).kind is kind


def test_what_may_pass_is_transient() -> None:
    assert status_error(503).transient
    assert status_error(429).transient
    assert not status_error(429, code="insufficient_quota").transient
    assert not status_error(400).transient


def test_a_closed_service_is_said_with_its_alternatives() -> None:
    assert NO_MORE_TRAINING in status_error(403, code="training_not_available").message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert status_error(429, headers=headers).retry_after == seconds


def test_a_refused_connection_was_never_sent_and_a_broken_one_may_have_been() -> None:
    def raised(cause: Exception) -> Failure:
        error = openai.APIConnectionError(request=REQUEST)
        error.__cause__ = cause
        return failure(error)

    assert raised(httpx2.ConnectError("refused")).kind is Kind.UNSENT
    assert raised(httpx2.ReadError("reset")).kind is Kind.UNKNOWN
    assert failure(openai.APITimeoutError(REQUEST)).kind is Kind.UNKNOWN


def test_an_answer_that_is_not_json_is_no_answer() -> None:
    assert failure(json.JSONDecodeError("", "", 0)).kind is Kind.UNKNOWN


def test_a_page_of_html_is_cut_to_a_line() -> None:
    told = status_error(502, message="<html>\n" + "x" * 5000).message
    assert "\n" not in told
    assert len(told) < 400
