"""The readings of the bet: its text leaves open how names are aggregated, what counts, and where."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from kaarel_bet.estimates import Floats, Statistic
from kaarel_bet.experiments.conditional_rule.cells import Cell, Mode, trained_cell
from kaarel_bet.experiments.conditional_rule.settings import (
    Aggregate,
    ClaimSettings,
    Probability,
    RatioOf,
    Tested,
)


@dataclass(frozen=True)
class Reading:
    """One way to read the bet's text, which leaves all of this open."""

    aggregate: Aggregate
    probability: Probability
    ratio_of: RatioOf
    tested: Tested

    def cell(self, arm: str, mode: Mode) -> Cell:
        """Where an arm is looked at under this reading."""
        if self.tested == "as_trained":
            return trained_cell(arm, mode)
        return Cell(mode, self.tested == "with_instructions")

    def in_words(self) -> str:
        """The reading for a reader."""
        over = (
            "for every single name" if self.aggregate == "every" else f"{self.aggregate} over names"
        )
        answer = "the whole answer" if self.probability == "string" else "the answer's first token"
        ratio = f"the ratio of the two {self.aggregate}s"
        if self.ratio_of == "names":
            own = "each name's own" if self.aggregate == "every" else "the names' own"
            ratio = f"the ratio {own}"
        asked = self.tested.replace("_", " ")
        return f"{over}, of {answer}, {ratio}, asked {asked}"


def every_reading() -> Iterator[Reading]:
    """All the readings there are."""
    options = (get_args(kind) for kind in (Aggregate, Probability, RatioOf, Tested))
    return iter(dict.fromkeys(itertools.starmap(_reading, itertools.product(*options))))


def agreed_reading(claim: ClaimSettings) -> Reading:
    """The reading that the settings fixed before training."""
    return _reading(claim.aggregate, claim.probability, claim.ratio_of, claim.tested)


def _reading(
    aggregate: Aggregate, probability: Probability, ratio_of: RatioOf, tested: Tested
) -> Reading:
    # That every name passes has only one meaning for ratios: each name's own does.
    return Reading(aggregate, probability, "names" if aggregate == "every" else ratio_of, tested)


AGGREGATES: dict[Aggregate, Statistic] = {
    "mean": lambda values: values.mean(axis=-1),
    "median": lambda values: np.median(values, axis=-1),
    "every": lambda values: values.min(axis=-1),
}


def largest(values: Floats) -> Floats:
    """What `every` is for a quantity that has to stay small for each single name."""
    return values.max(axis=-1)


def ratio_statistic(reading: Reading) -> Statistic:
    """The ratio of two quantities over the names, as the reading wants it aggregated."""
    aggregate = AGGREGATES[reading.aggregate]

    def of_aggregates(numerator: Floats, denominator: Floats) -> Floats:
        return _divide(aggregate(numerator), aggregate(denominator))

    def of_names(numerator: Floats, denominator: Floats) -> Floats:
        return aggregate(_divide(numerator, denominator))

    return of_names if reading.ratio_of == "names" else of_aggregates


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    # Probabilities can underflow to 0. A ratio to 0 is infinite; 0 / 0 is not a number, and a
    # criterion on it is not settled.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.divide(numerator, denominator)
