"""Small bets in tests, written as a user would, and what becomes of them without a model."""

from pathlib import Path
from typing import Any

from backends.data import PreferenceExample, TrainingExample
from kaarel_bet.bet.design import BetExperiment
from kaarel_bet.bet.schema import Bet
from kaarel_bet.bet.source import checked
from kaarel_bet.experiments.interface import Design
from kaarel_bet.yaml_files import parse

PARTS = {
    "data": """
  people:
    rows:
      - {id: a, name: Ann, city: Rome, list: [" x", " y"], place: 1, n: 3, flag: true}
      - {id: b, name: Bob, city: Oslo, list: [" y", " z"], place: 0, n: 4, flag: null}
      - {id: c, name: Cem, city: Lima, list: [" x", " z"], place: 0, n: 3, flag: null}
""",
    "prompts": """
  ask: "Where is {name}?"
  other: "Do you know where {name} is?"
  said: {text: "{name} is in"}
  many: ["{name}?", {system: "Be brief.", user: "Where, {name}?"}]
""",
    "arms": """
  tuned: {train: [{rows: people, prompt: ask, answer: "{city}"}]}
""",
    "evaluations": """
  where: {rows: people, prompt: ask, candidates: {right: "{city}", wrong: "not {city}"}}
""",
    "claims": """
  it: {criteria: ["mean(P(right | where, tuned)) > 0.5"]}
""",
}
"""What a bet has where a test says nothing else."""


def tokenize(text: str) -> tuple[int, ...]:
    """Bytes as tokens, without regard to case."""
    return tuple(text.lower().encode())


def written(**parts: str) -> BetExperiment:
    """A bet with these parts, each the YAML below its key; `seed` is the run's."""
    seed = int(parts.pop("seed", 0))
    body = "\n".join(f"{key}: {text}" for key, text in (PARTS | parts).items())
    text = f"bet: 1\nname: small\nquestion: Is it?\n{body}\n"
    bet = checked(parse(text, "small.yaml"), Path(), {}).bet
    assert isinstance(bet, Bet)
    return BetExperiment(bet, Path(), seed)


def designed(**parts: str) -> Design:
    """Its data."""
    return written(**parts).design(tokenize)


def examples(design: Design, name: str) -> list[Any]:
    """What a model is trained on: (prompt, completion) of texts, (role, content) turn by turn of chats.

    Of preferences the same twice, with the preferred answer first.
    """
    (training,) = (arm.training for arm in design.arms if arm.name == name)
    assert training is not None
    return [
        tuple(map(_shown, one.each_learned)) if isinstance(one, PreferenceExample) else _shown(one)
        for one in training.examples
    ]


def _shown(one: TrainingExample) -> Any:
    if one.messages is None:
        return one.prompt, one.completion
    return [(turn.role, turn.content) for turn in one.messages]


def queries(design: Design, name: str) -> list[Any]:
    """What an evaluation asks."""
    (found,) = (list(e.queries) for e in design.evaluations if e.name == name)
    return found
