"""Claims and verdicts: pure. A claim is a conjunction of criteria, judged only on valid evidence."""

from collections.abc import Sequence
from typing import Literal

from backends.schema import Number, Strict
from kaarel_bet.estimates import Estimate

Comparison = Literal[">", "<"]
Outcome = Literal["holds", "fails", "undecided"]


class Criterion(Strict):
    """A quantity compared with a threshold; `holds` is None when its interval straddles it."""

    name: str
    value: Number
    low: Number
    high: Number
    threshold: float
    comparison: Comparison
    holds: bool | None


class Check(Strict):
    """Whether the evidence is valid in one respect, and the figures that say so."""

    name: str
    passed: bool
    detail: str


class Verdict(Strict):
    """What became of a claim, and in plain words why."""

    claim: str
    outcome: Outcome
    summary: str
    criteria: tuple[Criterion, ...]
    checks: tuple[Check, ...]


class Verdicts(Strict):
    """The contents of verdict.json."""

    verdicts: tuple[Verdict, ...]


def criterion(name: str, estimate: Estimate, comparison: Comparison, threshold: float) -> Criterion:
    """Compares an estimate with a threshold: settled only if its whole interval lies on one side."""
    if comparison == ">":
        surely, surely_not = estimate.low > threshold, estimate.high <= threshold
    else:
        surely, surely_not = estimate.high < threshold, estimate.low >= threshold
    return Criterion(
        name=name,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        threshold=threshold,
        comparison=comparison,
        holds=True if surely else False if surely_not else None,
    )


def outcome(criteria: Sequence[Criterion], checks: Sequence[Check]) -> Outcome:
    """`undecided` if a check failed or a criterion is not settled; else whether all criteria hold."""
    if any(not check.passed for check in checks) or any(c.holds is None for c in criteria):
        return "undecided"
    return "holds" if all(c.holds for c in criteria) else "fails"


def undecided_by(criteria: Sequence[Criterion], checks: Sequence[Check]) -> str:
    """What leaves a claim undecided, in words."""
    reasons = [f"{check.name} failed" for check in checks if not check.passed]
    reasons += [f"{c.name} straddles {c.threshold:g}" for c in criteria if c.holds is None]
    return "; ".join(reasons)
