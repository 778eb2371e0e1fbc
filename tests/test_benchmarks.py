import re
from pathlib import Path

import pytest

from benchmarks import coverage
from benchmarks.defaults import VARIANTS

_REPOSITORY = Path(__file__).parents[1]


def test_the_defaults_have_one_row_for_each_variant_that_was_measured() -> None:
    text = (_REPOSITORY / "docs" / "defaults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)
    assert rows == ["variant", *VARIANTS]


@pytest.mark.parametrize(
    "name",
    [
        "median P, 32 names sd 2, 5 trainings sd 1 nats",
        "ratio of medians, 32 names sd 2, 3 trainings sd 1 nat",
        "difference to base, 60 rows, 3 trainings sd 2 points",
        "lead, 60 rows, 5 trainings sd 2 points",
        "accuracy, 180 rows of 20 templates, 5 trainings sd 2 points",
    ],
)
def test_the_shipped_claims_are_right_about_known_answers(name: str) -> None:
    """A part of benchmarks/coverage.py, whose figures are in docs/statistics.md."""
    (cell,) = (cell for cell in coverage.cells() if cell.name == name)
    found = coverage.found(cell, 100)
    assert found.default
    # Of 100 that cover with 0.95, 85 or fewer come once in 10,000; false verdicts are at most 0.025.
    assert found.coverage > 0.85
    assert found.false_verdicts < 0.10
    assert found.power > 0.2
