"""Shipped bets in tests: opened as a run opens them, and answered without a model."""

from collections.abc import Callable
from typing import Any

from kaarel_bet.bet.source import Assignment, load_bet
from kaarel_bet.experiments import open_experiment
from kaarel_bet.experiments.interface import Answers, Asked, Design, Experiment


def tokenize(text: str) -> tuple[int, ...]:
    """Bytes as tokens: quick, and the same everywhere."""
    return tuple(text.encode())


def shipped(name: str, *assignments: str) -> Experiment:
    """The shipped bet with these of its keys set: `family=task_id`."""
    loaded = load_bet(name, None, [Assignment.parse(f"{name}.{text}") for text in assignments])
    return open_experiment(loaded.bet, loaded.folder, seed=0)


def answered(design: Design, answer: Callable[..., Any]) -> Answers:
    """Every query answered by `answer(query, arm, replicate, question, draw)`."""
    entries = {arm.name: arm.entry() for arm in design.arms}
    asked = []
    for evaluation in design.evaluations:
        for name in evaluation.arms:
            arm = entries[name]
            replicate = evaluation.replicate or arm.replicate
            results = [
                answer(query, arm.arm, replicate, evaluation.question, evaluation.draw)
                for query in evaluation.queries
            ]
            asked.append(Asked(arm, evaluation.entry(), results))
    return Answers(asked, design.tables)
