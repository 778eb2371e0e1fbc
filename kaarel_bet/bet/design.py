"""A bet in YAML as an experiment: its data, and its answers as observations."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

from typing_extensions import override

from backends.data import CandidateScore, ScoringResult
from backends.errors import SettingsError
from kaarel_bet.bet.arms import Trainer, check_arms, variants
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.evaluations import Asker, Asking, askings
from kaarel_bet.bet.graders import check_graders, grade, graders_of, range_of, unbuilt_graders
from kaarel_bet.bet.observations import (
    LOG_PROBABILITY,
    SHARE,
    Observation,
    Question,
    Range,
    Vocabulary,
)
from kaarel_bet.bet.prompts import Prompts, fill
from kaarel_bet.bet.schema import Bet
from kaarel_bet.bet.tables import make_tables
from kaarel_bet.content import Section
from kaarel_bet.experiments.interface import (
    BASE,
    Answers,
    Arm,
    Design,
    Experiment,
    Row,
    Tokenize,
)

ROW = "row"
"""What `intervals.cluster` is where every row is one of its own."""


class BetExperiment(Experiment):
    """One bet that is all said in its file. `folder` is where its data files are."""

    def __init__(self, bet: Bet, folder: Path, seed: int) -> None:
        self._bet = bet
        self._folder = folder
        self._seed = seed

    @property
    @override
    def bet(self) -> Bet:
        return self._bet

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self._bet)

    @cached_property
    def _askings(self) -> list[Asking]:
        return askings(self._bet, self._prompts)

    @override
    def vocabulary(self) -> Vocabulary:
        check_graders(self._bet)
        check_arms(self._bet, self._prompts)
        return Vocabulary(
            arms=[BASE, *(one.name for one in variants(self._bet))],
            questions={asked.name: _question(self._bet, asked) for asked in self._askings},
            parameters=self._bet.parameters,
        )

    @override
    def unbuilt(self) -> str | None:
        return unbuilt_graders(self._bet)

    @override
    def design(self, tokenize: Tokenize) -> Design:
        self.vocabulary()
        tables = make_tables(self._bet, self._folder, tokenize, self._seed)
        self._check_cluster(tables.rows)
        trained = Trainer(self._bet, self._prompts, tables.rows, self._seed).trained()
        arms = [Arm(BASE, "the untouched base model", None, BASE), *(one.arm for one in trained)]
        self._check_arms_named({arm.arm for arm in arms})
        asker = Asker(self._bet, tables.rows, trained, cache(tokenize), self._seed)
        evaluations = [made for asked in self._askings for made in asker.evaluations(asked)]
        return Design(arms, evaluations, tables.notes, tables.rows)

    @override
    def observe(self, answers: Answers) -> Iterator[Observation]:
        by_name = {asked.name: asked for asked in self._askings}
        for one in answers.asked:
            asked = by_name[one.evaluation.question]
            by_id = {row["id"]: row for row in asked.rows(answers.tables)}
            n_forms = len(asked.forms)
            for place, result in enumerate(one.results):
                row = by_id[result.id.rpartition("/")[0] if n_forms > 1 else result.id]
                if isinstance(result, ScoringResult):
                    found = [_scored(asked, result, row)]
                else:
                    found = [self._graded(asked, text, row) for text in result.texts]
                for part, numbers in enumerate(found, start=place % n_forms * len(found) + 1):
                    yield from self._observations(one.run, row, part, numbers)
        for asked in self._askings:
            if (given := asked.spec.given) is not None:  # no model answered: it was there
                for row in asked.asked(asked.rows(answers.tables)):
                    text = fill(given, row, f"{asked.where}.given")
                    found = self._graded(asked, text, row)
                    yield from self._observations(("", 1, asked.name, 1), row, 1, found)

    @override
    def sections(self, answers: Answers, judge: Judge) -> Sequence[Section]:
        from kaarel_bet.bet.report import sections  # it draws, which nothing else here needs

        return sections(self._bet, answers, judge.observations, judge)

    # --- checks --------------------------------------------------------------------------------------

    def _check_cluster(self, tables: Mapping[str, Sequence[Row]]) -> None:
        column = self._bet.intervals.cluster
        rows = [rows[0] for rows in tables.values() if rows]
        if column != ROW and not any(column in row for row in rows):
            raise SettingsError(
                f"intervals.cluster: no table has a column '{column}'; 'row' is each row"
            )
        by = self._bet.report.by
        if by is not None and not any(by in row for row in rows):
            raise SettingsError(f"report.by: no table has a column '{by}'")

    def _check_arms_named(self, there: set[str]) -> None:
        """`each` may find fewer values than it may take at most."""
        said = json.dumps(self._bet.model_dump(mode="json", include={"claims", "checks", "report"}))
        for one in variants(self._bet):
            if one.name not in there and re.search(rf"\b{one.name}\b", said):
                raise SettingsError(
                    f"arms.{one.entry}: makes no {one.name}, which a claim or check names: too few values "
                    "have rows enough"
                )

    # --- observations --------------------------------------------------------------------------------

    def _graded(self, asked: Asking, text: str, row: Row) -> "Iterator[_Found]":
        for name, grader in graders_of(self._bet, asked.evaluation, asked.spec).items():
            number = grade(grader, text, row, f"{asked.where}.graders.{name}")
            yield name, "", number, number

    def _observations(
        self, whose: tuple[str, int, str, int], row: Row, part: int, found: "Iterable[_Found]"
    ) -> Iterator[Observation]:
        column = self._bet.intervals.cluster
        cluster = str(row["id"] if column == ROW else row.get(column, row["id"]))
        return (Observation(*whose, row["id"], part, cluster, *one) for one in found)


_Found = tuple[str, str, float, float]
"""Quantity, candidate, low, high."""


def _question(bet: Bet, asked: Asking) -> Question:
    spec = asked.spec
    graders = graders_of(bet, asked.evaluation, spec)
    quantities: dict[str, Range] = {name: range_of(grader) for name, grader in graders.items()}
    if spec.candidates is not None:
        quantities |= {"logP": LOG_PROBABILITY, "logP_first": LOG_PROBABILITY}
    if spec.answer is not None:
        quantities |= {"acc": SHARE, "acc_norm": SHARE}
    return Question(frozenset(asked.arms), quantities, tuple(spec.candidates or ()), asked.table)


def _scored(asked: Asking, result: ScoringResult, row: Row) -> Iterator[_Found]:
    if asked.spec.candidates is not None:
        for name, score in result.candidates.items():
            yield "logP", name, score.total.low, score.total.high
            yield "logP_first", name, score.first_token.low, score.first_token.high
    right = asked.right(row)
    if right is not None:
        answers = asked.answers(row)
        scores = [result.candidates[label] for label in answers]
        yield "acc", "", *correctness(scores, [1] * len(scores), right)
        lengths = [len(text) for text in answers.values()]
        yield "acc_norm", "", *correctness(scores, lengths, right)


def correctness(
    scores: Sequence[CandidateScore], lengths: Sequence[int], right: int
) -> tuple[float, float]:
    """Whether the right answer is chosen as (low, high): equal, or 0 and 1 if it is not settled.

    By lm-evaluation-harness (`ConfigurableTask.process_results`): chosen is the largest log-probability,
    for `acc_norm` divided by the answer's number of characters; of equals the first. It is not settled
    where log-probabilities are intervals that leave open which is largest.
    """
    ends = [(s.total.low / n, s.total.high / n) for s, n in zip(scores, lengths, strict=True)]

    def beats(one: int, other: int) -> bool:
        low, high = ends[one][0], ends[other][1]
        return low >= high if one < other else low > high

    others = [place for place in range(len(ends)) if place != right]
    wins = all(beats(right, other) for other in others)
    loses = any(beats(other, right) for other in others)
    return float(wins), float(not loses)
