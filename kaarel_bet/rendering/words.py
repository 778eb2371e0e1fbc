"""Verdicts as tables of words, the same in every rendering."""

from kaarel_bet.claims import Verdict
from kaarel_bet.content import Table

_MET = {True: "met", False: "not met", None: "straddles"}


def criterion_rows(verdict: Verdict) -> Table:
    """The criteria with their intervals."""
    return Table(
        ("criterion", "value", "interval", "needed", ""),
        [
            (
                c.name,
                f"{c.value:.2g}",
                f"{c.low:.2g} to {c.high:.2g}",
                f"{c.comparison} {c.threshold:g}",
                _MET[c.holds],
            )
            for c in verdict.criteria
        ],
    )


def check_rows(verdict: Verdict) -> Table:
    """The validity checks."""
    return Table(
        ("check", "", "detail"),
        [(c.name, "passed" if c.passed else "FAILED", c.detail) for c in verdict.checks],
    )
