"""Claims and verdicts: pure. A claim is a conjunction of criteria, judged only on valid evidence."""

from typing import Literal

from backends.schema import Number, Strict
from kaarel_bet.estimates import Estimate

Comparison = Literal[">", ">=", "<", "<="]
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

    name: str
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
    return Criterion(
        name=name,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        threshold=threshold,
        comparison=comparison,
        holds=settled(estimate.low, estimate.high, comparison, threshold),
    )


def settled(low: float, high: float, comparison: Comparison, threshold: float) -> bool | None:
    """Whether all of an interval is on the wanted side of a threshold, or none of it; else None."""
    surely, surely_not = {
        ">": (low > threshold, high <= threshold),
        ">=": (low >= threshold, high < threshold),
        "<": (high < threshold, low >= threshold),
        "<=": (high <= threshold, low > threshold),
    }[comparison]
    return True if surely else False if surely_not else None
