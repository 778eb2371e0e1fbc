"""What the tables and figures of a bet's report are made of."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.observations import Observation, Observations
from kaarel_bet.bet.schema import Bet, Evaluation
from kaarel_bet.estimates import Estimate
from kaarel_bet.experiments.interface import BASE, Answers, Row

Pair = tuple[str, str]
"""An arm, and a question that it was asked."""

Run = Sequence[Observation]
"""Of one training or draw of examples, in the order of rows and samples."""


@dataclass(frozen=True)
class Evidence:
    """A bet's answers as observations, and who judges them."""

    bet: Bet
    answers: Answers
    judge: Judge

    @property
    def observations(self) -> Observations:
        """All of them."""
        return self.judge.observations

    @cached_property
    def roles(self) -> dict[str, str]:
        """Arm -> its role; none where all trained arms have the same."""
        found = {o.arm.arm: o.arm.role for o in self.answers.asked if o.arm.arm != BASE}
        return found if len(set(found.values())) > 1 else {}

    def evaluation(self, question: str) -> Evaluation:
        """The evaluation that a question is of."""
        return self.bet.evaluations[question.partition(".")[0]]

    def pairs(self, quantity: str, candidate: str = "") -> list[Pair]:
        """Who was asked what of which there is this quantity; arms in the manifest's order.

        Answers that were given have no arm.
        """
        known = self.judge.vocabulary
        return [
            (arm, question)
            for arm in (*known.arms, "")
            for question in known.questions
            if self.observations.of(quantity, question, arm, candidate)
        ]

    @property
    def headings(self) -> tuple[str, ...]:
        """Of the first cells of a pair's row."""
        return ("arm", "role", "asked") if self.roles else ("arm", "asked")

    def labels(self, pair: Pair) -> tuple[str, ...]:
        """The first cells of a pair's row."""
        arm, question = pair
        role = (self.roles.get(arm, ""),) if self.roles else ()
        return (arm or "(given)", *role, question)

    def runs(self, quantity: str, pair: Pair, candidate: str = "") -> Sequence[Run]:
        """The observations, run by run."""
        arm, question = pair
        return self.observations.runs(quantity, question, arm, candidate)

    def results(self, run: Run) -> list[Any]:
        """What the backend returned in a run."""
        whose = (run[0].arm, run[0].replicate, run[0].question, run[0].draw)
        return [r for one in self.answers.asked if one.run == whose for r in one.results]

    def estimate(self, pair: Pair, quantity: str = "acc") -> Estimate:
        """The mean of a quantity, with its interval."""
        of = ", ".join(filter(None, reversed(pair)))
        return self.judge.estimate(f"mean({quantity}({of}))")

    def rows_of(self, question: str) -> Sequence[Row]:
        """The rows of the table that a question is asked of; none where it is of several tables."""
        entries = (one.evaluation for one in self.answers.asked)
        table = next(entry.table for entry in entries if entry.question == question)
        return self.answers.tables[table] if table is not None else ()

    def among(self, rows: set[str]) -> "Evidence":
        """The same of some rows alone."""
        kept = Observations(one for one in self.observations.all() if one.row in rows)
        return replace(self, judge=replace(self.judge, observations=kept))


def in_short(number: float) -> str:
    """In two figures, of larger numbers in whole ones: never 1e+02 for 100."""
    return f"{number:.0f}" if 10 <= abs(number) < 1e6 else f"{number:.2g}"


def run_label(run: Run) -> str:
    """Which training it is, or which draw of examples."""
    return f"draw {run[0].draw}" if run[0].draw > 1 else str(run[0].replicate)


def mean(runs: Iterable[Run]) -> float:
    """Of probabilities, not of their logarithms; of intervals their middle; of nothing not a number."""
    exp = {"logP": math.exp}
    found = [(one, exp.get(one.quantity, float)) for run in runs for one in run]
    total = sum((of(one.low) + of(one.high)) / 2 for one, of in found)
    return total / len(found) if found else math.nan
