"""Observations made by hand, for tests of what is computed from them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kaarel_bet.bet.evaluation import Evaluator
from kaarel_bet.bet.observations import (
    LOG_PROBABILITY,
    SHARE,
    Observation,
    Observations,
    Question,
    Vocabulary,
)

Values = Sequence[float] | Sequence[Sequence[float]] | NDArray[np.float64]
"""Of every row, or of every run and row."""

PARAMETERS = {"threshold": 0.25}


class Evidence:
    """One question `q` about one table, asked of the arms a, b and base in all quantities."""

    def __init__(self) -> None:
        self._found: list[Observation] = []
        quantities = {"logP": LOG_PROBABILITY, "logP_first": LOG_PROBABILITY, "acc": SHARE}
        asked = Question(frozenset({"a", "b", "base"}), quantities, ("yes", "no"), "rows")
        few = Question(frozenset({"base"}), {"acc": SHARE}, (), "rows")
        losses = Question(frozenset({"a", "b"}), {"loss": (0.0, np.inf)}, (), "rows")
        other = Question(frozenset({"a"}), {"acc": SHARE}, (), "others")
        self.vocabulary = Vocabulary(
            ("base", "a", "b"),
            {"q": asked, "few.shots": few, "hard": losses, "elsewhere": other},
            PARAMETERS,
        )

    def add(
        self,
        quantity: str,
        arm: str,
        low: Values,
        high: Values | None = None,
        *,
        candidate: str = "",
        question: str = "q",
        clusters: Mapping[int, str] | None = None,
    ) -> "Evidence":
        """Values of a quantity; those of `P` are probabilities."""
        lows = np.atleast_2d(np.asarray(low, dtype=np.float64))
        highs = lows if high is None else np.atleast_2d(np.asarray(high, dtype=np.float64))
        if quantity == "P":
            quantity = "logP"
            with np.errstate(divide="ignore"):
                lows, highs = np.log(lows), np.log(highs)
        for run in range(len(lows)):
            for row in range(lows.shape[1]):
                self._found.append(
                    Observation(
                        arm=arm,
                        replicate=run + 1,
                        question=question,
                        draw=1,
                        row=f"row-{row}",
                        part=1,
                        cluster=(clusters or {}).get(row, f"row-{row}"),
                        quantity=quantity,
                        candidate=candidate,
                        low=float(lows[run, row]),
                        high=float(highs[run, row]),
                    )
                )
        return self

    @property
    def observations(self) -> Observations:
        return Observations(self._found)

    def evaluator(self, seed: int = 0) -> Evaluator:
        return Evaluator(self.observations, seed)
