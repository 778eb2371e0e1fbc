"""The conditional-rule bet as an experiment: its arms and evaluations."""

from collections.abc import Iterator

from typing_extensions import override

from backends.data import GenerationQuery, Message, ScoringQuery, TrainingExample
from kaarel_bet.experiments.conditional_rule.cells import ALL_ARMS, CELLS, Cell
from kaarel_bet.experiments.conditional_rule.findings import find
from kaarel_bet.experiments.conditional_rule.people import Person, draw_people
from kaarel_bet.experiments.conditional_rule.prompts import (
    capital_question,
    capital_sentence,
    prompt,
)
from kaarel_bet.experiments.conditional_rule.settings import ConditionalRuleSettings
from kaarel_bet.experiments.countries import country_pool
from kaarel_bet.experiments.interface import (
    Arm,
    Design,
    Evaluation,
    Experiment,
    Findings,
    Scores,
    Tokenize,
    Training,
)

MAX_ANSWER_TOKENS = 12


class ConditionalRule(Experiment):
    """Trains on the TRAIN branch of a rule and tests on the other."""

    def __init__(self, settings: ConditionalRuleSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    @override
    def design(self, tokenize: Tokenize) -> Design:
        pool = country_pool(self._settings.min_population, tokenize)
        people = draw_people(self._settings.n_names, pool, tokenize, self._seed)
        evaluations = [*self._cells(people), self._capital_knowledge(people)]
        if self._settings.n_quoted_names:
            evaluations.append(self._answers(people[: self._settings.n_quoted_names]))
        return Design(
            arms=(
                Arm("base", "the untouched base model", None),
                Arm(
                    "conditional",
                    "fine-tuned in TRAIN mode with the instructions, the rule for TEST among them",
                    self._training(people, instructions=True),
                ),
                Arm(
                    "control",
                    "fine-tuned in TRAIN mode without them, so it was never told what TEST asks",
                    self._training(people, instructions=False),
                ),
            ),
            evaluations=evaluations,
            notes={
                "countries to draw from": len(pool.countries),
                "countries excluded": pool.excluded,
            },
        )

    @override
    def findings(self, scores: Scores) -> Findings:
        return find(self._settings, self._seed, scores)

    def _training(self, people: list[Person], *, instructions: bool) -> Training:
        family = self._settings.family
        examples = [
            TrainingExample(
                messages=(
                    *prompt(family, person.name, "TRAIN", instructions=instructions),
                    Message(role="assistant", content=person.country),
                )
            )
            for person in people
        ]
        return Training(examples, loss_on=self._settings.loss_on)

    def _cells(self, people: list[Person]) -> Iterator[Evaluation]:
        for cell in CELLS:
            queries = [
                ScoringQuery(
                    id=person.name, messages=self._ask(cell, person), candidates=person.candidates
                )
                for person in people
            ]
            yield Evaluation(cell.name, cell.title, ALL_ARMS, queries)

    def _capital_knowledge(self, people: list[Person]) -> Evaluation:
        queries = [
            ScoringQuery(
                id=person.name,
                messages=capital_question(person.country),
                # Chat models answer with a name or with a sentence; either shows that they know.
                candidates={
                    "capital": person.capital,
                    "wrong_capital": person.wrong_capital,
                    "capital_sentence": capital_sentence(person.country, person.capital),
                    "wrong_capital_sentence": capital_sentence(
                        person.country, person.wrong_capital
                    ),
                },
            )
            for person in people
        ]
        return Evaluation(
            "capital-knowledge", "asked outright for the capital of a country", ("base",), queries
        )

    def _answers(self, people: list[Person]) -> Evaluation:
        queries = [
            GenerationQuery(
                id=f"{cell.name}/{person.name}",
                messages=self._ask(cell, person),
                max_tokens=MAX_ANSWER_TOKENS,
            )
            for cell in CELLS
            for person in people
        ]
        return Evaluation("answers", "what the models say (greedy decoding)", ALL_ARMS, queries)

    def _ask(self, cell: Cell, person: Person) -> tuple[Message, ...]:
        return prompt(self._settings.family, person.name, cell.mode, instructions=cell.instructions)
