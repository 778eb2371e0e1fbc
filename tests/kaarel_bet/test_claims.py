import math

import pytest
from pydantic import ValidationError

from kaarel_bet.claims import Check, Comparison, Criterion, Verdict, Verdicts, criterion
from kaarel_bet.estimates import Estimate


@pytest.mark.parametrize(
    ("low", "high", "comparison", "holds"),
    [
        (1.1, 2.0, ">", True),
        (0.1, 0.9, ">", False),
        (0.5, 1.5, ">", None),
        (1.0, 1.0, ">", False),  # not above it
        (1.0, 2.0, ">", None),
        (0.5, 1.0, ">", False),
        (0.1, 0.9, "<", True),
        (1.1, 2.0, "<", False),
        (0.5, 1.5, "<", None),
        (1.0, 1.0, "<", False),  # not below it
        (0.5, 1.0, "<", None),
        (1.0, 2.0, "<", False),
        (1.0, 1.0, ">=", True),
        (0.5, 0.9, ">=", False),
        (0.5, 1.0, ">=", None),
        (1.0, 1.0, "<=", True),
        (1.1, 2.0, "<=", False),
        (1.0, 2.0, "<=", None),
        (math.nan, math.nan, ">", None),
        (2.0, math.inf, ">", True),
        (0.0, math.inf, ">", None),
        (-math.inf, 0.5, "<", True),
    ],
)
def test_a_criterion_is_settled_only_by_its_whole_interval(
    low: float, high: float, comparison: Comparison, holds: bool | None
) -> None:
    judged = criterion("a name", Estimate(value=low, low=low, high=high), comparison, 1.0)
    assert judged.holds is holds


def test_a_criterion_records_what_it_was_judged_on() -> None:
    judged = criterion("P(capital)", Estimate(0.2, 0.1, 0.3), ">", 0.05)
    assert judged == Criterion(
        name="P(capital)",
        value=0.2,
        low=0.1,
        high=0.3,
        threshold=0.05,
        comparison=">",
        holds=True,
    )


def test_verdicts_with_infinite_figures_survive_json() -> None:
    infinite = criterion("ratio", Estimate(math.inf, -math.inf, math.inf), ">", 10)
    verdict = Verdict(
        name="c",
        claim="x",
        outcome="undecided",
        summary="y",
        criteria=(infinite,),
        checks=(Check(name="k", passed=True, detail=""),),
    )
    verdicts = Verdicts(verdicts=(verdict,))
    assert Verdicts.model_validate_json(verdicts.model_dump_json()) == verdicts


def test_a_verdict_has_no_unknown_outcome() -> None:
    with pytest.raises(ValidationError):
        Verdict.model_validate(
            {
                "name": "c",
                "claim": "x",
                "outcome": "maybe",
                "summary": "",
                "criteria": (),
                "checks": (),
            }
        )
