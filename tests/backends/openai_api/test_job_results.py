"""Result files, and models that are shut down."""

import base64
from datetime import date, timedelta

import pytest

from backends.errors import ServiceError
from backends.openai_api.availability import check_shutdown
from backends.openai_api.job_results import parse_metrics

CSV = b"step,train_loss,train_accuracy,valid_loss\n1,2.5,0.1,\n2,1.25,0.5,1.5\n,,,0.9\n"


@pytest.mark.parametrize("content", [CSV, base64.b64encode(CSV)], ids=["plain", "base64"])
def test_a_result_file_is_a_training_curve(content: bytes) -> None:
    first, second = parse_metrics(content)
    assert (first.step, first.train_loss, first.validation_loss) == (1, 2.5, None)
    assert (second.step, second.train_loss, second.validation_loss) == (2, 1.25, 1.5)


@pytest.mark.parametrize("content", [b"", b"not,a\ncurve,at all\n", b"\xff\xfe\x00"])
def test_another_file_is_no_curve(content: bytes) -> None:
    assert parse_metrics(content) == []


def test_a_model_that_was_shut_down_is_refused_with_the_alternatives() -> None:
    with pytest.raises(ServiceError, match=r"--backend local.*kaarel-bet serve"):
        check_shutdown("m", date.today().isoformat())


def test_a_model_that_will_be_shut_down_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    day = date.today() + timedelta(days=30)
    check_shutdown("m", day.isoformat())
    assert str(day) in caplog.text


@pytest.mark.parametrize("told", [None, "", "some day"])
def test_no_date_is_no_warning(told: str | None, caplog: pytest.LogCaptureFixture) -> None:
    check_shutdown("m", told)
    assert not caplog.records
