"""A bet in YAML as an experiment: its data, and its answers as observations."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from typing_extensions import override

from backends.data import CandidateScore, ScoringResult
from backends.errors import SettingsError
from kaarel_bet.bet.arms import Trainer, check_arms, replicates, variants
from kaarel_bet.bet.claims import Judge
from kaarel_bet.bet.evaluations import Asker, Asking, askings
from kaarel_bet.bet.graders import KNOWN, Grading, check_graders, graders_of, quantities_of
from kaarel_bet.bet.judging import Judging
from kaarel_bet.bet.observations import (
    LOG_PROBABILITY,
    SHARE,
    Observation,
    Question,
    Range,
    Vocabulary,
)
from kaarel_bet.bet.prompts import Prompts, cell, fill
from kaarel_bet.bet.schema import Bet, NoLeak
from kaarel_bet.bet.tables import make_tables
from kaarel_bet.content import Section
from kaarel_bet.experiments.interface import (
    BASE,
    Answers,
    Arm,
    Asked,
    Design,
    Evaluation,
    Experiment,
    Row,
    Tokenize,
)
from kaarel_bet.manifest import MODEL

ROW = "row"
"""What `intervals.cluster` is where every row is one of its own."""


_Found = tuple[str, str, float, float]
"""Quantity, candidate, low, high."""

_Whose = tuple[str, int, str, int]
"""Arm, replicate, question, draw."""

_Answered = tuple[Asking, _Whose, Row, Sequence[str], int]
"""Whose answers these are to which row, and the part of the first."""


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
        self._check_models()
        return Vocabulary(
            arms=[BASE, *(one.name for one in variants(self._bet)), *self._bet.models],
            questions={asked.name: _question(self._bet, asked) for asked in self._askings},
            parameters=self._bet.parameters,
            trainings={
                one.name: len(replicates(self._bet, one.entry)) for one in variants(self._bet)
            },
            models=[*self._bet.models],
        )

    @override
    def design(self, tokenize: Tokenize) -> Design:
        self.vocabulary()
        tables = make_tables(self._bet, self._folder, tokenize, self._seed)
        self._check_columns(tables.rows)
        trained = Trainer(self._bet, self._prompts, tables.rows, self._seed).trained()
        arms = [Arm(BASE, "the untouched base model", None, BASE), *(one.arm for one in trained)]
        self._check_arms_named({arm.arm for arm in arms})
        for name, model in self._bet.models.items():
            said = f"{model.model}, as it is, by the {model.backend} backend"
            arms.append(Arm(name, said, None, name, role=MODEL))
        asker = Asker(self._bet, tables.rows, trained, cache(tokenize), self._seed)
        evaluations = [made for asked in self._askings for made in asker.evaluations(asked)]
        return Design(arms, evaluations, tables.notes, tables.rows)

    @property
    @override
    def rounds(self) -> int:
        return max(_depth(asked) for asked in self._askings) or 1

    @override
    def follow_ups(self, answers: Answers) -> Sequence[Evaluation]:
        asker = Asker(self._bet, answers.tables, (), _as_text, self._seed)
        return [
            asker.after(asked, one)
            for asked in self._askings
            for one in answers.asked
            if asked.after is not None and one.evaluation.question == asked.after.name
        ]

    @property
    @override
    def judges(self) -> Sequence[str]:
        judgings = (one for of in self._gradings().values() for one in of.judgings)
        return list(dict.fromkeys(judging.model for judging in judgings))

    @override
    def judgements(self, answers: Answers) -> Sequence[Evaluation]:
        found: dict[str, tuple[Judging, dict[str, Any]]] = {}
        gradings = self._gradings()
        for asked, _, row, texts, _ in self._answered(answers):
            for judging in gradings[asked.evaluation].judgings:
                _, queries = found.setdefault(judging.name, (judging, {}))
                for text in texts:
                    query = judging.query(text, row)
                    queries.setdefault(query.id, query)
        return [
            Evaluation(name, name, f"as {judging.where} asks", [judging.model], [*queries.values()])
            for name, (judging, queries) in found.items()
        ]

    @override
    def observe(self, answers: Answers) -> Iterator[Observation]:
        gradings = self._gradings(answers.judgements)
        for asked, whose, row, texts, first in self._answered(answers):
            for part, text in enumerate(texts, start=first):
                grades = gradings[asked.evaluation].grades(text, row)
                known = {f"{name}.{KNOWN}": (x, x) for name, x in asked.known(row).items()}
                found = ((name, "", *ends) for name, ends in {**grades, **known}.items())
                yield from self._observations(whose, row, part, found)
        for asked, one in self._asked(answers):
            if one.evaluation.kind == "scoring":
                for row, place, result in _by_row(asked, one, answers):
                    found = _scored(asked, result, row)
                    yield from self._observations(one.run, row, place + 1, found)

    def _answered(self, answers: Answers) -> Iterator[_Answered]:
        """Every query's answers in words, and those that were there."""
        for asked, one in self._asked(answers):
            if one.evaluation.kind == "generation":
                for row, place, result in _by_row(asked, one, answers):
                    yield asked, one.run, row, result.texts, place * asked.samples + 1
        for asked in self._askings:
            if (given := asked.spec.given) is not None:  # no model answered: it was there
                for row in asked.asked(asked.rows(answers.tables)):
                    text = fill(given, row, f"{asked.where}.given")
                    yield asked, ("", 1, asked.name, 1), row, (text,), 1

    def _asked(self, answers: Answers) -> Iterator[tuple[Asking, Asked]]:
        by_name = {asked.name: asked for asked in self._askings}
        return ((by_name[one.evaluation.question], one) for one in answers.asked)

    def _gradings(
        self, judgements: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Grading]:
        """Evaluation -> how its answers are graded."""
        return {
            name: Grading(self._bet, name, self._seed, judgements or {})
            for name in self._bet.evaluations
        }

    @override
    def sections(self, answers: Answers, judge: Judge) -> Sequence[Section]:
        from kaarel_bet.bet.report import sections  # it draws, which nothing else here needs

        return sections(self._bet, answers, judge)

    # --- checks --------------------------------------------------------------------------------------

    def _check_models(self) -> None:
        """Raises SettingsError for a model that is named like an arm, or that judges what it answered."""
        arms = {BASE, *self._bet.arms, *(one.name for one in variants(self._bet))}
        for name in self._bet.models:
            if name in arms:
                raise SettingsError(f"models.{name}: an arm is called the same; rename one")
        for asked in self._askings:
            of = Grading(self._bet, asked.evaluation, self._seed)
            for judging in of.judgings:
                if judging.model in asked.arms:
                    what = f"'{judging.model}' is asked and would judge its own answers"
                    raise SettingsError(f"{asked.where}.arms: {what} ({judging.where})")

    def _check_columns(self, tables: Mapping[str, Sequence[Row]]) -> None:
        for name, check in self._bet.checks.items():
            if isinstance(check, NoLeak):
                for row in (rows[0] for rows in map(tables.__getitem__, check.between) if rows):
                    cell(row, check.on, f"checks.{name}.on")
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

    def _observations(
        self, whose: _Whose, row: Row, part: int, found: Iterable[_Found]
    ) -> Iterator[Observation]:
        column = self._bet.intervals.cluster
        cluster = str(row["id"] if column == ROW else row.get(column, row["id"]))
        return (Observation(*whose, row["id"], part, cluster, *one) for one in found)


def _depth(asked: Asking) -> int:
    return 0 if asked.after is None else 1 + _depth(asked.after)


def _as_text(text: str) -> tuple[int, ...]:
    """For answers known by their texts alone, where the tokenizer is not at hand any more."""
    return tuple(text.encode("utf-8", "surrogatepass"))


def _by_row(asked: Asking, one: Asked, answers: Answers) -> Iterator[tuple[Row, int, Any]]:
    """Every result with its row, and which of the row's it is, from 0."""
    by_id = {row["id"]: row for row in asked.rows(answers.tables)}
    for number, result in enumerate(one.results):
        yield by_id[asked.row_of(result.id)], number % asked.n_places, result


def _question(bet: Bet, asked: Asking) -> Question:
    spec = asked.spec
    graders = graders_of(bet, asked.evaluation, spec)
    quantities: dict[str, Range] = {}
    for name, grader in graders.items():
        quantities |= quantities_of(name, grader)
    for name, known in spec.known.items():
        quantities[f"{name}.{KNOWN}"] = SHARE if isinstance(known, dict) else quantities[name]
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
