"""Shipped bets in tests: opened as a run opens them, and answered without a model."""

from collections.abc import Callable
from typing import Any

from backends.data import GenerationQuery, ScoringQuery
from kaarel_bet.bet.source import Assignment, load_bet
from kaarel_bet.experiments import open_experiment
from kaarel_bet.experiments.interface import Answers, Asked, Design, Evaluation, Experiment
from kaarel_bet.manifest import ArmEntry, EvaluationEntry


def tokenize(text: str) -> tuple[int, ...]:
    """Bytes as tokens: quick, and the same everywhere."""
    return tuple(text.encode())


def shipped(name: str, *assignments: str) -> Experiment:
    """The shipped bet with these of its keys set: `family=task_id`."""
    loaded = load_bet(name, None, [Assignment.parse(f"{name}.{text}") for text in assignments])
    return open_experiment(loaded.bet, loaded.folder, seed=0)


def answered(design: Design, answer: Callable[..., Any]) -> Answers:
    """Every query answered by `answer(query, arm, replicate, question, draw)`."""
    entries = {
        arm.name: ArmEntry(
            name=arm.name,
            arm=arm.arm,
            replicate=arm.replicate,
            role=arm.role,
            description=arm.description,
            training_file=None,
            validation_file=None,
            loss_on=None,
            starts_from=None,
        )
        for arm in design.arms
    }
    asked = []
    for evaluation in design.evaluations:
        for name in evaluation.arms:
            arm = entries[name]
            replicate = evaluation.replicate or arm.replicate
            results = [
                answer(query, arm.arm, replicate, evaluation.question, evaluation.draw)
                for query in evaluation.queries
            ]
            asked.append(Asked(arm, _entry(evaluation), results))
    return Answers(asked, design.tables)


def _entry(evaluation: Evaluation) -> EvaluationEntry:
    kinds = {ScoringQuery: "scoring", GenerationQuery: "generation"}
    return EvaluationEntry(
        name=evaluation.name,
        question=evaluation.question,
        replicate=evaluation.replicate,
        draw=evaluation.draw,
        description=evaluation.description,
        kind=kinds.get(type(evaluation.queries[0]), "search"),  # pyright: ignore[reportArgumentType]
        arms=tuple(evaluation.arms),
        table=evaluation.table,
        queries_file="-",
        n_queries=len(evaluation.queries),
    )
