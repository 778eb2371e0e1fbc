"""The evidence table: everything that a claim, a check or a table of the report is computed from."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields

import numpy as np

from kaarel_bet.estimates import Sample

Range = tuple[float, float]
"""The least and the most that a quantity can be."""

LOG_PROBABILITY: Range = (-math.inf, 0.0)
SHARE: Range = (0.0, 1.0)


BASE = "base"
"""The arm that is the untouched base model; every bet has it."""

DRAWS = " asked "
"""Stands between arm and question where runs are draws of few-shot examples; trainings are the arm's."""


@dataclass(frozen=True)
class Observation:
    """One number about one row, known to lie between `low` and `high`.

    `quantity` is what it is: `logP` and `logP_first` (natural logarithms, of a `candidate`), `acc`,
    `acc_norm`, or a grader's name. `part` tells apart what one row has several of: phrasings and samples.
    """

    arm: str
    replicate: int
    question: str
    draw: int
    row: str
    part: int
    cluster: str
    quantity: str
    candidate: str
    low: float
    high: float


@dataclass(frozen=True)
class Question:
    """What can be said of a question before it is asked.

    `quantities` are those that it is observed in, with their ranges; `candidates` those of `logP`.
    Questions of the same `table` are about the same rows in the same order.
    """

    arms: frozenset[str]
    quantities: Mapping[str, Range]
    candidates: tuple[str, ...] = ()
    table: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """Everything that an expression may name."""

    arms: Sequence[str]
    questions: Mapping[str, Question]
    parameters: Mapping[str, float] = field(default_factory=dict[str, float])
    trainings: Mapping[str, int] = field(default_factory=dict[str, int])
    """Arm -> how often it is trained."""
    models: Sequence[str] = ()
    """Those of the arms that are never trained, but for the base."""

    @property
    def untrained(self) -> tuple[str, ...]:
        """Whom else an observation may be of; answers that were given are nobody's."""
        return (BASE, "", *self.models)


Key = tuple[str, str, str, str]
"""Quantity, candidate (or nothing), question, arm."""


class Observations:
    """All of a run's observations, by what they are of."""

    def __init__(self, observations: Iterable[Observation]) -> None:
        self._found: defaultdict[Key, list[Observation]] = defaultdict(list)
        for one in observations:
            self._found[one.quantity, one.candidate, one.question, one.arm].append(one)
        self._samples: dict[Key, Sample] = {}

    def keys(self) -> list[Key]:
        """What there are observations of, in the order they came."""
        return list(self._found)

    def all(self) -> Iterator[Observation]:
        """Every one."""
        return (one for found in self._found.values() for one in found)

    def of(self, quantity: str, question: str, arm: str, candidate: str = "") -> list[Observation]:
        """The observations of one quantity, in the order they came."""
        return self._found.get((quantity, candidate, question, arm), [])

    def runs(
        self, quantity: str, question: str, arm: str, candidate: str = ""
    ) -> list[list[Observation]]:
        """The same, one list a training or draw of examples."""
        found: defaultdict[tuple[int, int], list[Observation]] = defaultdict(list)
        for one in self.of(quantity, question, arm, candidate):
            found[one.replicate, one.draw].append(one)
        return [found[run] for run in sorted(found)]

    def sample(self, quantity: str, question: str, arm: str, candidate: str = "") -> Sample:
        """One quantity for every row, (replicates and draws, rows); a row with several parts has several.

        Raises:
            KeyError: there is no such observation.
        """
        key = (quantity, candidate, question, arm)
        if key not in self._samples:
            if key not in self._found:
                raise KeyError(key)
            runs = self.runs(quantity, question, arm, candidate)
            self._samples[key] = _sample(runs, source=(arm, question))
        return self._samples[key]

    def as_csv(self) -> str:
        """The whole table, a line an observation."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(column.name for column in fields(Observation))
        writer.writerows(astuple(one) for one in self.all())
        return text.getvalue()


_ENDS = ("low", "high")


def _sample(runs: Sequence[Sequence[Observation]], source: tuple[str, str]) -> Sample:
    """Every row that any run was asked; where trainings were asked rows of their own, which those are."""
    rows = dict.fromkeys((one.row, one.part) for run in runs for one in run)
    place = {key: number for number, key in enumerate(rows)}
    cluster = {(one.row, one.part): one.cluster for run in runs for one in run}
    asked = np.zeros((len(runs), len(rows)), dtype=np.bool_)
    low, high = np.zeros(asked.shape), np.zeros(asked.shape)
    for number, run in enumerate(runs):
        places = [place[one.row, one.part] for one in run]
        asked[number, places] = True
        for ends, end in zip((low, high), _ENDS, strict=True):
            ends[number, places] = [getattr(one, end) for one in run]
    draws = len({run[0].draw for run in runs})
    if draws > 1 and len(runs) > draws:  # of one training, draws of examples are not independent
        low, high = (ends.reshape(-1, draws, ends.shape[1]).mean(axis=1) for ends in (low, high))
        asked = asked[::draws]
        draws = 1
    return Sample(
        low=low,
        high=high,
        clusters=tuple(cluster[key] for key in rows),
        # Draws of examples differ by question, trainings by arm.
        runs=(f"{source[0]}{DRAWS}{source[1]}" if draws > 1 else source[0],),
        asked=None if asked.all() else asked,
    )
